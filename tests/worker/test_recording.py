"""What attempts say on their way is stored: soon while somebody watches, seldom else."""

import asyncio

from domain.errors import ExecutorFailed, StoreUnavailable
from domain.events import Output, events_of
from domain.task import ANONYMOUS

SECONDS_A_PIECE = 0.02


async def log_of(worker, task_id):
    page = await worker.store.memory.log(task_id, ANONYMOUS, 0, 100_000)
    return [event.what for event in events_of(page, 0)]


async def outputs_of(worker, task_id):
    return [what for what in await log_of(worker, task_id) if isinstance(what, Output)]


def long_text(seconds):
    return ["piece "] * round(seconds / SECONDS_A_PIECE)


def talk(seconds, **does):
    return {"says": long_text(seconds), "every": SECONDS_A_PIECE, **does}


async def test_what_nobody_watches_is_stored_every_second(at_work):
    async with at_work() as worker:
        task_id = await worker.submit(**talk(10))
        await worker.until_done(task_id)
        assert 9 <= len(worker.store.calls["append"]) <= 11
        text = "".join(what.delta for what in await outputs_of(worker, task_id))
        assert text == "".join(long_text(10))


async def test_what_somebody_watches_is_stored_as_it_comes(at_work):
    async with at_work() as worker:
        task_id = await worker.submit(**talk(10))
        worker.store.watch([task_id])
        await worker.until(0.2, lambda: worker.store.calls["append"])
        await worker.until_done(task_id)
        assert 10 / 0.07 <= len(worker.store.calls["append"]) <= 10 / 0.05 + 2


async def test_the_first_piece_is_stored_at_once_where_somebody_watches(at_work):
    async with at_work() as worker:
        task_id = await worker.submit(says=["first", "last"], every=60)
        worker.store.watch([task_id])
        await worker.until(70, lambda: worker.executor.started)
        waited = await worker.until(70, lambda: worker.store.calls["append"])
        assert 59.9 <= waited <= 60.1


async def test_who_begins_to_watch_gets_at_once_what_there_is(at_work):
    async with at_work() as worker:
        task_id = await worker.submit(says=["first", "last"], seconds=0.2, every=0.3)
        await asyncio.sleep(0.6)
        assert not worker.store.calls["append"]
        worker.store.watch([task_id])
        await worker.until(0.1, lambda: worker.store.calls["append"])


async def test_a_text_that_was_not_stored_yet_is_left_to_the_result(at_work):
    async with at_work() as worker:
        task_ids = [await worker.submit(says=["all ", "of it"]) for _ in range(10)]
        await worker.until_done(*task_ids)
        assert not worker.store.calls["append"]
        assert [what.delta for what in await outputs_of(worker, task_ids[0])] == ["all of it"]


async def test_what_a_failed_attempt_said_is_stored_before_it_ends(at_work, labourer):
    executors = {"one": labourer(broken=ExecutorFailed("it broke", retryable=False))}
    async with at_work(executors=executors) as worker:
        task_id = await worker.submit(says=["a", "b"], raises="broken")
        await worker.until_done(task_id)
        assert [what.delta for what in await outputs_of(worker, task_id)] == ["ab"]


async def test_what_could_not_be_stored_is_stored_later_in_its_order_and_once(at_work):
    async with at_work() as worker:
        task_id = await worker.submit(**talk(5))
        worker.store.watch([task_id])
        await worker.until(5, lambda: worker.store.calls["append"])
        worker.store.failing["append"] = StoreUnavailable("gone for a moment")
        await asyncio.sleep(2)
        del worker.store.failing["append"]
        await worker.until_done(task_id)
        outputs = await outputs_of(worker, task_id)
        assert "".join(what.delta for what in outputs) == "".join(long_text(5))
        assert [what.index for what in outputs] == list(range(len(outputs)))


async def test_words_that_the_store_cannot_take_do_not_hold_up_the_outcome(at_work, labourer):
    executors = {"one": labourer(broken=ExecutorFailed("it broke", retryable=False))}
    async with at_work(executors=executors) as worker:
        worker.store.failing["append"] = RuntimeError("no column holds it")
        task_id = await worker.submit(says=["a", "b"], raises="broken")
        [task] = await worker.until_done(task_id, within=5)
        assert (task.error.code, task.recorded) == ("executor_error", 0)


async def test_an_attempt_whose_words_are_refused_has_lost_its_task(at_work, logged):
    async with at_work(poll_seconds=3600) as worker:
        task_id = await worker.submit(**talk(60))
        await worker.until(5, lambda: worker.executor.started)
        worker.store.hints = False
        await worker.store.memory.delete(task_id, ANONYMOUS)
        await worker.until(1.5, lambda: worker.executor.cancelled)
        assert [line["task_id"] for line in logged if line["event"] == "lease_lost"] == [task_id]


async def test_the_longer_an_attempt_talks_the_less_often_it_is_stored(at_work):
    async with at_work() as worker:
        task_id = await worker.submit(**talk(400))
        while not (await worker.task(task_id)).done:
            worker.store.watch([task_id])
            await asyncio.sleep(10)
        assert 1_000 < len(worker.store.calls["append"]) < 100 * 400**0.5 * 2
