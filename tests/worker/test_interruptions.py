"""What clients cancel or delete, and what runs out of time, is stopped; and that is the truth."""

import asyncio

import pytest

from domain.errors import StoreUnavailable
from domain.task import ANONYMOUS, AttemptOutcome, TaskStatus

GRACE_SECONDS = 5
POLL_SECONDS = 1.0


async def running(worker, **does):
    """A task that runs, which has been going on for half a second."""
    task_id = await worker.submit(**does)
    await worker.until(2, lambda: any(started[0] == task_id for started in worker.executor.started))
    await asyncio.sleep(0.5)
    return task_id


async def test_a_hint_stops_a_running_task_at_once(at_work):
    async with at_work(poll_seconds=3600) as worker:
        task_id = await running(worker, seconds=100)
        asked = await worker.cancel(task_id)
        assert (asked.status, asked.done) == (TaskStatus.RUNNING, False)
        [task] = await worker.until_done(task_id, within=0.2)
    assert (task.status, task.error, task.result) == (TaskStatus.CANCELLED, None, None)
    assert (task.attempt, task.failures) == (1, 0)
    assert task.attempts[-1].outcome is AttemptOutcome.CANCELLED
    assert len(worker.executor.cancelled) == 1


async def test_without_a_hint_a_cancel_is_found_within_a_poll(at_work):
    async with at_work() as worker:
        worker.store.hints = False
        task_id = await running(worker, seconds=100)
        await worker.cancel(task_id)
        await worker.until_done(task_id, within=POLL_SECONDS + 0.2)


async def test_a_cancel_that_comes_while_the_task_is_being_claimed_is_heard(at_work):
    async with at_work(poll_seconds=3600) as worker:
        await asyncio.sleep(1)
        claim = worker.store.memory.claim

        async def claim_and_cancel(*arguments):
            claims = await claim(*arguments)
            for each in claims:
                await worker.cancel(each.task.id)
            await asyncio.sleep(0.3)  # the hint finds a worker that knows of no such task
            return claims

        worker.store.memory.claim = claim_and_cancel
        task_id = await worker.submit(seconds=100)
        await worker.until_done(task_id, within=1)


async def test_a_task_is_not_cancelled_before_its_executor_let_go(at_work):
    async with at_work() as worker:
        task_id = await running(worker, seconds=100, lets_go_after=3)
        await worker.cancel(task_id)
        await asyncio.sleep(2.5)
        assert (await worker.task(task_id)).status is TaskStatus.RUNNING
        await worker.until_done(task_id, within=1)


async def test_after_its_grace_a_task_is_cancelled_though_its_executor_holds_on(at_work):
    async with at_work(most=1) as worker:
        task_id = await running(worker, seconds=100, lets_go_after=30)
        await worker.cancel(task_id)
        waited = await worker.until(60, lambda: worker.store.memory._rows[task_id].task.done)
        assert waited == pytest.approx(GRACE_SECONDS, abs=0.3)
        following = await worker.submit()
        await asyncio.sleep(10)
        assert (await worker.task(following)).status is TaskStatus.PENDING  # the slot is taken
        await worker.until_done(following, within=20)


async def test_an_executor_is_asked_to_let_go_once(at_work):
    async with at_work() as worker:
        task_id = await running(worker, seconds=100, lets_go_after=4)
        await worker.cancel(task_id)
        await worker.until_done(task_id, within=GRACE_SECONDS)
    assert len(worker.executor.cancelled) == 1


async def test_a_result_that_comes_after_the_cancel_is_thrown_away(at_work):
    async with at_work() as worker:
        worker.store.hints = False
        task_id = await running(worker, seconds=0.6)
        await worker.cancel(task_id)
        [task] = await worker.until_done(task_id, within=0.3)
    assert (task.status, task.result) == (TaskStatus.CANCELLED, None)
    assert worker.executor.cancelled == []


async def test_a_cancel_is_not_forgotten_while_the_store_does_not_answer(at_work):
    async with at_work() as worker:
        task_id = await running(worker, seconds=100)
        worker.store.failing["interruptions"] = StoreUnavailable("away")
        await worker.cancel(task_id)
        await asyncio.sleep(3)
        worker.store.failing.clear()
        await worker.until_done(task_id, within=2.5)


async def test_a_drain_does_not_hand_back_what_was_cancelled(at_work):
    async with at_work() as worker:
        worker.store.hints = False
        task_id = await running(worker, seconds=100)
        await worker.cancel(task_id)
        await worker.dispatcher.drain(0)
        assert (await worker.task(task_id)).status is TaskStatus.CANCELLED


async def test_the_worker_of_a_deleted_task_stops_and_writes_nothing(at_work):
    async with at_work(poll_seconds=3600) as worker:
        task_id = await running(worker, seconds=100)
        assert await worker.store.memory.delete(task_id, ANONYMOUS)
        await worker.until(0.2, lambda: worker.executor.running == 0)
        await worker.until_done(await worker.submit(), within=1)
    assert await worker.store.memory.get(task_id, ANONYMOUS) is None


async def test_nobody_asks_for_interruptions_while_nothing_runs(at_work):
    async with at_work() as worker:
        await asyncio.sleep(60)
    assert worker.store.calls["interruptions"] == []


async def test_a_running_task_is_stopped_at_its_deadline(at_work):
    async with at_work() as worker:
        task_id = await worker.submit(seconds=100, deadline_seconds=2, timeout_seconds=50)
        [task] = await worker.until_done(task_id, within=2.2)
    assert (task.status, task.error.code) == (TaskStatus.FAILED, "deadline_exceeded")
    assert len(worker.executor.cancelled) == 1


async def test_a_timeout_before_the_deadline_is_a_timeout(at_work):
    async with at_work() as worker:
        task_id = await worker.submit(seconds=100, deadline_seconds=50, timeout_seconds=2)
        [task] = await worker.until_done(task_id, within=2.2)
    assert task.error.code == "timeout"


async def test_a_task_that_waits_past_its_deadline_never_starts_and_fails_within_a_poll(at_work):
    async with at_work(most=1) as worker:
        await running(worker, seconds=30)
        late = await worker.submit(deadline_seconds=10)
        [task] = await worker.until_done(late, within=10 + POLL_SECONDS + 0.1)
    assert (task.status, task.error.code) == (TaskStatus.FAILED, "deadline_exceeded")
    assert (task.attempt, task.started_at) == (0, None)


async def test_a_delayed_task_starts_within_a_poll_of_its_time(at_work):
    async with at_work() as worker:
        task_id = await worker.submit(delay_seconds=20)
        await asyncio.sleep(19.9)
        assert worker.executor.started == []
        await worker.until_done(task_id, within=POLL_SECONDS + 0.2)


async def test_a_worker_tells_again_and_again_that_it_is_there(at_work):
    async with at_work() as worker:
        await asyncio.sleep(60)
        view = await worker.store.memory.queue(ANONYMOUS)
    assert view.workers == {"one": 1}
