"""Vanished workers and old tasks."""

import asyncio

import pytest

from domain.ports import Fence
from domain.retention import RetentionPolicy
from domain.task import TaskStatus

SWEEP_SECONDS = 100


@pytest.fixture
def orphan():
    """Let a worker that nobody hears of again claim what is pending."""

    async def claim(worker, lease_seconds=0.0):
        claims = await worker.store.memory.claim("vanished", {"one": 1000}, lease_seconds)
        return [claim.fence for claim in claims]

    return claim


async def test_orphans_run_again_at_once_when_the_worker_starts(at_work, labourer, orphan):
    async with at_work(poll_seconds=3600) as worker:
        task_ids = [await worker.submit() for _ in range(3)]
        assert await orphan(worker, lease_seconds=-1) == [Fence(each, 1) for each in task_ids]
        tasks = await worker.until_done(*task_ids, within=0.1)
    assert {(task.attempt, task.crashes, task.failures) for task in tasks} == {(2, 1, 0)}


async def test_more_orphans_than_one_step_takes_are_all_taken_at_once(at_work, orphan):
    async with at_work(most=300) as worker:
        task_ids = [await worker.submit() for _ in range(250)]
        await orphan(worker, lease_seconds=-1)
        await worker.until_done(*task_ids, within=0.5)
    assert {limit for _, limit in worker.store.calls["reclaim"]} == {100}


async def test_a_vanished_workers_task_is_taken_over_after_its_lease_and_a_poll(at_work, orphan):
    async with at_work() as worker:
        await asyncio.sleep(3)
        worker.store.hints = False
        task_id = await worker.submit()
        await orphan(worker, lease_seconds=5)
        took = await worker.until(10, lambda: worker.executor.started)
        assert 5 <= took <= 5 + 2.1
        [task] = await worker.until_done(task_id)
    assert task.crashes == 1


async def test_a_task_that_lost_its_worker_too_often_fails(at_work, orphan, logged):
    async with at_work(max_crashes=0) as worker:
        await asyncio.sleep(3)
        worker.store.hints = False
        task_id = await worker.submit()
        await orphan(worker)
        [task] = await worker.until_done(task_id, within=3)
    assert task.status is TaskStatus.FAILED
    assert task.error is not None
    assert task.error.code == "worker_lost"
    [line] = [line for line in logged if line["event"] == "worker_lost"]
    assert (line["task_id"], line["attempt"], line["status"]) == (task_id, 1, "failed")


async def test_old_tasks_go_at_the_start_and_then_every_sweep(at_work):
    async with at_work(sweep_seconds=SWEEP_SECONDS, retention=RetentionPolicy(30, 0)) as worker:
        await worker.until_done(*[await worker.submit() for _ in range(3)])
        await asyncio.sleep(SWEEP_SECONDS - 10)
        assert (await worker.store.memory.counts()).total == 3
        await asyncio.sleep(20)
        assert (await worker.store.memory.counts()).total == 0
    assert len(worker.store.calls["purge"]) == 2


async def test_many_old_tasks_go_in_small_steps_between_which_others_run(at_work):
    async with at_work(
        sweep_seconds=SWEEP_SECONDS, retention=RetentionPolicy(30, 0), most=100
    ) as worker:
        await worker.until_done(*[await worker.submit() for _ in range(1_050)])
        worker.store.seconds["purge"] = 1
        worker.store.calls["purge"].clear()
        await worker.until(2 * SWEEP_SECONDS, lambda: worker.store.calls["purge"])
        await worker.until_done(await worker.submit(), within=0.1)
        await worker.until(20, lambda: len(worker.store.calls["purge"]) == 11)
        await asyncio.sleep(2)
        assert worker.readiness.faults() == {}
        assert (await worker.store.memory.counts()).total == 1
    assert {limit for _, limit in worker.store.calls["purge"]} == {100}


async def test_a_sweep_that_fails_stops_nothing_else(at_work, orphan):
    async with at_work(sweep_seconds=SWEEP_SECONDS) as worker:
        worker.store.failing["purge"] = RuntimeError("a row that cannot be removed")
        await asyncio.sleep(2 * SWEEP_SECONDS)
        task_id = await worker.submit(seconds=1)
        [task] = await worker.until_done(task_id, within=2)
        assert task.status is TaskStatus.COMPLETED
        worker.store.hints = False
        late = await worker.submit()
        await orphan(worker)
        await worker.until_done(late, within=3)
