"""The drain: nothing is lost, nothing fails, nothing counts."""

import asyncio

import pytest

from domain.errors import StoreUnavailable
from domain.ports import HandedBack
from domain.task import TaskStatus

AFTER_THE_TIME = 1.25  # the promise is 1.2 seconds; what is left is the step of this clock


async def drained_in(worker, seconds):
    started = worker.clock.monotonic()
    await worker.dispatcher.drain(seconds)
    return worker.clock.monotonic() - started


async def test_running_tasks_may_finish_in_the_time_given(at_work):
    async with at_work() as worker:
        task_id = await worker.submit(seconds=5)
        await worker.until(1, lambda: worker.executor.running)
        assert 4 < await drained_in(worker, 20) < 6
        task = await worker.task(task_id)
    assert (task.status, task.attempt) == (TaskStatus.COMPLETED, 1)


async def test_what_does_not_finish_in_time_is_handed_back_and_counts_as_nothing(at_work):
    async with at_work() as worker:
        task_id = await worker.submit(seconds=100, max_attempts=1)
        await worker.until(1, lambda: worker.executor.running)
        worker.store.seconds["settle"] = 0.3
        assert await drained_in(worker, 2) < 2 + AFTER_THE_TIME
        task = await worker.task(task_id)
        assert worker.executor.running == 0
        assert len(worker.store.calls["settle"]) == 1
    assert (task.status, task.attempt) == (TaskStatus.PENDING, 1)
    assert (task.failures, task.crashes, task.error) == (0, 0, None)


async def test_an_idle_worker_is_drained_at_once(at_work):
    async with at_work() as worker:
        await asyncio.sleep(5)
        assert await drained_in(worker, 60) < 0.1


async def test_nothing_is_claimed_any_more(at_work):
    async with at_work(most=2) as worker:
        await worker.submit(seconds=3)
        await worker.until(1, lambda: worker.executor.running)
        draining = asyncio.create_task(worker.dispatcher.drain(10))
        await asyncio.sleep(0.1)
        late = await worker.submit()
        await draining
        await asyncio.sleep(10)
        assert (await worker.task(late)).attempt == 0
    assert len(worker.executor.started) == 1


async def test_a_claim_that_was_under_way_is_handed_back(at_work):
    async with at_work(poll_seconds=3600) as worker:
        await asyncio.sleep(10)
        worker.store.seconds["claim"] = 0.5
        task_id = await worker.submit()
        await asyncio.sleep(0.1)
        await drained_in(worker, 0)
        task = await worker.task(task_id)
    assert (task.status, task.attempt, task.crashes) == (TaskStatus.PENDING, 1, 0)
    assert worker.executor.started == []


async def test_a_result_that_is_there_is_written_not_handed_back(at_work):
    async with at_work() as worker:
        worker.store.seconds["settle"] = 0.3
        task_id = await worker.submit(seconds=1)
        await worker.until(2, lambda: worker.store.calls["settle"])
        await drained_in(worker, 0)
        task = await worker.task(task_id)
    assert task.status is TaskStatus.COMPLETED


async def test_an_attempt_that_ended_in_this_very_step_keeps_its_result(at_work):
    async with at_work() as worker:
        task_id = await worker.submit(seconds=1)
        await worker.until(1, lambda: worker.executor.running)
        [attempt] = worker.dispatcher._executing

        def stop_too_late():
            assert attempt.task.done()
            assert not attempt.is_decided
            worker.dispatcher._stop(attempt, HandedBack(attempt.fence))

        worker.executor.at_end = lambda: asyncio.get_running_loop().call_soon(stop_too_late)
        [task] = await worker.until_done(task_id)
    assert (task.status, task.attempt) == (TaskStatus.COMPLETED, 1)


async def test_an_executor_that_does_not_let_go_holds_up_nothing(at_work, logged):
    async with at_work() as worker:
        task_id = await worker.submit(seconds=100, lets_go_after=50)
        await worker.until(1, lambda: worker.executor.running)
        assert await drained_in(worker, 1) < 1 + AFTER_THE_TIME
        assert (await worker.task(task_id)).status is TaskStatus.PENDING
        assert "drain_incomplete" in [line["event"] for line in logged]


@pytest.mark.parametrize("how", ["failing", "hanging"])
async def test_a_store_that_is_away_does_not_keep_the_process(at_work, how):
    async with at_work() as worker:
        await worker.submit(seconds=100)
        await worker.until(1, lambda: worker.executor.running)
        if how == "failing":
            worker.store.failing["settle"] = StoreUnavailable("away")
        else:
            worker.store.hanging |= {"settle", "claim", "renew"}
        assert await drained_in(worker, 1) < 1 + AFTER_THE_TIME
        assert worker.executor.running == 0


async def test_a_hand_back_is_tried_again_while_the_store_is_away(at_work):
    async with at_work() as worker:
        task_id = await worker.submit(seconds=100)
        await worker.until(1, lambda: worker.executor.running)
        worker.store.failing["settle"] = StoreUnavailable("away")
        draining = asyncio.create_task(worker.dispatcher.drain(0))
        await worker.until(1, lambda: len(worker.store.calls["settle"]) == 2)
        del worker.store.failing["settle"]
        await draining
        task = await worker.task(task_id)
    assert (task.status, task.crashes) == (TaskStatus.PENDING, 0)


async def test_draining_twice_is_draining_once(at_work):
    async with at_work() as worker:
        task_id = await worker.submit(seconds=100, lets_go_after=50)
        await worker.until(1, lambda: worker.executor.running)
        await worker.dispatcher.drain(0)
        await worker.dispatcher.drain(0)
        written = [outcome for [batch] in worker.store.calls["settle"] for outcome in batch]
        assert (await worker.task(task_id)).attempt == 1
    assert len(written) == 1
