"""Leases are kept while the worker lives, trusted no longer than is sure, and lost for good."""

import asyncio

import pytest

from domain.errors import StoreUnavailable
from domain.ports import Fence, HandedBack
from domain.task import TaskStatus

LEASE_SECONDS = 6  # of the workers in this folder


async def take_away(worker, task_id):
    """What a reclaim does to a worker that was thought dead."""
    task = await worker.task(task_id)
    [took_effect] = await worker.store.memory.settle([HandedBack(Fence(task_id, task.attempt))])
    assert took_effect


async def test_a_task_may_run_far_longer_than_its_lease(at_work):
    async with at_work() as worker:
        [task] = await worker.until_done(await worker.submit(seconds=20 * LEASE_SECONDS))
    assert (task.status, task.attempt, task.crashes) == (TaskStatus.COMPLETED, 1, 0)


async def test_all_leases_are_renewed_in_one_call_every_third_of_a_lease(at_work):
    async with at_work(most=4) as worker:
        for _ in range(4):
            await worker.submit(seconds=1000)
        await asyncio.sleep(3)
        worker.store.calls["renew"].clear()
        await asyncio.sleep(5 * LEASE_SECONDS)
        renewals = worker.store.calls["renew"]
    assert 11 <= len(renewals) <= 15
    assert {len(fences) for fences, _ in renewals} == {4}


async def test_an_attempt_whose_renewal_is_refused_is_cancelled_and_writes_nothing(at_work, logged):
    async with at_work(most=1) as worker:
        task_id = await worker.submit(seconds=100)
        await worker.until(1, lambda: worker.executor.running)
        await take_away(worker, task_id)
        await worker.until(LEASE_SECONDS / 3 + 1, lambda: worker.executor.cancelled)
        [task] = await worker.until_done(task_id)
    assert (task.status, task.attempt, task.failures) == (TaskStatus.COMPLETED, 2, 0)
    assert [line for line in logged if line["event"] == "lease_lost"] == [
        {"event": "lease_lost", "log_level": "warning", "task_id": task_id, "attempt": 1}
    ]


async def test_the_late_result_of_an_attempt_that_was_taken_away_is_refused(at_work, logged):
    async with at_work(most=2) as worker:
        task_id = await worker.submit(seconds=1.5)
        await worker.until(1, lambda: worker.executor.running)
        await asyncio.sleep(1.2)
        await take_away(worker, task_id)
        await worker.until(1, lambda: len(worker.executor.started) == 2)
        await asyncio.sleep(1)
        task = await worker.task(task_id)
        assert (task.status, task.attempt) == (TaskStatus.RUNNING, 2)
        [task] = await worker.until_done(task_id)
    assert (task.status, task.attempt) == (TaskStatus.COMPLETED, 2)
    [refused] = [line for line in logged if line["event"] == "late_result_refused"]
    assert (refused["task_id"], refused["attempt"]) == (task_id, 1)


@pytest.mark.parametrize("how", ["failing", "hanging"])
async def test_an_attempt_is_cancelled_before_a_lease_ends_that_cannot_be_renewed(at_work, how):
    async with at_work(most=1) as worker:
        if how == "failing":
            worker.store.failing["renew"] = StoreUnavailable("away")
        else:
            worker.store.hanging.add("renew")
        await worker.submit(seconds=100)
        await worker.until(1, lambda: worker.executor.running)
        await worker.until(LEASE_SECONDS, lambda: worker.executor.cancelled)
    [(_, _, started)] = worker.executor.started[:1]
    [(_, _, cancelled)] = worker.executor.cancelled[:1]
    assert LEASE_SECONDS / 2 < cancelled - started < LEASE_SECONDS


async def test_a_lease_is_counted_from_the_start_of_the_claim_that_gave_it(at_work):
    # The store took the task at some moment of a call that lasted almost the whole lease.
    async with at_work(most=1, poll_seconds=3600) as worker:
        await asyncio.sleep(10)
        worker.store.seconds["claim"] = LEASE_SECONDS - 1
        worker.store.hanging.add("renew")
        await worker.submit(seconds=100)
        asked = worker.clock.monotonic()
        await worker.until(LEASE_SECONDS, lambda: worker.executor.cancelled)
    assert worker.executor.cancelled[0][2] - asked < LEASE_SECONDS


async def test_a_renewal_is_counted_from_the_start_of_its_call(at_work):
    async with at_work(most=1) as worker:
        worker.store.seconds["renew"] = 3
        await worker.submit(seconds=100)
        await worker.until(2, lambda: worker.store.calls["renew"])
        asked = worker.clock.monotonic()
        await asyncio.sleep(3.1)
        worker.store.hanging.add("renew")
        await worker.until(LEASE_SECONDS, lambda: worker.executor.cancelled)
    assert LEASE_SECONDS - 1 < worker.executor.cancelled[0][2] - asked < LEASE_SECONDS


async def test_a_jump_of_the_wall_clock_ends_no_lease_and_no_timeout(at_work):
    async with at_work() as worker:
        task_ids = [await worker.submit(seconds=50, timeout_seconds=60) for _ in range(2)]
        await worker.until(1, lambda: worker.executor.running == 2)
        worker.clock.jump(86_400)
        await asyncio.sleep(20)
        worker.clock.jump(-2 * 86_400)
        tasks = await worker.until_done(*task_ids)
    assert {(task.status, task.attempt) for task in tasks} == {(TaskStatus.COMPLETED, 1)}


async def test_the_lease_of_a_result_that_cannot_be_written_yet_is_still_renewed(at_work):
    async with at_work() as worker:
        task_id = await worker.submit()
        worker.store.failing["settle"] = StoreUnavailable("away")
        await asyncio.sleep(3 * LEASE_SECONDS)
        del worker.store.failing["settle"]
        [task] = await worker.until_done(task_id, within=1.1)
    assert (task.status, task.attempt, task.crashes) == (TaskStatus.COMPLETED, 1, 0)
