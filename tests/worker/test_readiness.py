"""Readiness tells the truth within five seconds, and recovers by itself."""

import asyncio

import pytest

from domain.errors import StorageFull, StoreUnavailable

NOTICED_WITHIN = 5


@pytest.fixture(params=["raises", "hangs"])
def spoil(request):
    """Make a method of the store raise or hang; gives what makes it work again."""

    def spoil_method(store, method):
        if request.param == "raises":
            store.failing[method] = RuntimeError("broken")
            return lambda: store.failing.pop(method)
        store.hanging.add(method)
        return None  # a call that never answers is never over

    return spoil_method


LOOPS = [
    ("claim", "claim"),
    ("renew", "renew"),
    ("reclaim", "reclaim"),
    ("purge", "sweep"),
    ("check", "store"),
]


@pytest.mark.parametrize(("method", "fault"), LOOPS)
async def test_a_loop_that_does_no_whole_round_any_more_shows(at_work, spoil, method, fault):
    async with at_work(sweep_seconds=1) as worker:
        await worker.submit(seconds=1000)
        await asyncio.sleep(5)
        assert worker.readiness.faults() == {}
        mend = spoil(worker.store, method)
        # A renewal is due every two seconds here; from then on the five count.
        extra = 2 if method == "renew" else 0
        await worker.until(NOTICED_WITHIN + extra, lambda: fault in worker.readiness.faults())
        if mend:
            mend()
            await worker.until(3, lambda: worker.readiness.faults() == {})


@pytest.mark.parametrize("poll_seconds", [0.05, 3600])
async def test_a_worker_that_waits_or_is_busy_is_ready(at_work, poll_seconds):
    async with at_work(most=1, poll_seconds=poll_seconds) as worker:
        for seconds in (0, 60):
            await worker.submit(seconds=seconds)
            for _ in range(50):
                await asyncio.sleep(0.5)
                assert worker.readiness.faults() == {}


async def test_a_result_that_cannot_be_written_shows(at_work):
    async with at_work() as worker:
        worker.store.failing["settle"] = StoreUnavailable("away")
        await worker.submit()
        await worker.until(NOTICED_WITHIN, lambda: "settle" in worker.readiness.faults())
        del worker.store.failing["settle"]
        await worker.until(3, lambda: worker.readiness.faults() == {})


async def test_too_little_room_shows_under_a_name_of_its_own(at_work):
    async with at_work() as worker:
        worker.store.failing["check"] = StoreUnavailable("away")
        await worker.until(NOTICED_WITHIN, lambda: set(worker.readiness.faults()) == {"store"})
        worker.store.failing["check"] = StorageFull(10, 100)
        await worker.until(NOTICED_WITHIN, lambda: set(worker.readiness.faults()) == {"storage"})
        del worker.store.failing["check"]
        await worker.until(NOTICED_WITHIN, lambda: worker.readiness.faults() == {})


async def test_a_loop_that_keeps_failing_pauses_between_its_rounds(at_work):
    async with at_work() as worker:
        await asyncio.sleep(3)
        worker.store.failing["claim"] = StoreUnavailable("away")
        worker.store.calls["claim"].clear()
        await asyncio.sleep(100)
    assert 50 <= len(worker.store.calls["claim"]) <= 110


async def test_a_store_that_fails_stops_no_loop_for_ever(at_work):
    async with at_work(sweep_seconds=1) as worker:
        methods = ["claim", "renew", "settle", "reclaim", "purge", "check"]
        for method in methods:
            worker.store.failing[method] = StoreUnavailable("away")
        task_id = await worker.submit()
        await asyncio.sleep(300)
        assert worker.readiness.faults() != {}
        worker.store.failing.clear()
        await worker.until_done(task_id, within=2)
        await worker.until(3, lambda: worker.readiness.faults() == {})
