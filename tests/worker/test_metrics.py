"""What the attempts of a worker come to is counted, each once, whatever happens to it."""

import asyncio

from prometheus_client.parser import text_string_to_metric_families as metrics_in

from domain.errors import ExecutorFailed, StoreUnavailable
from domain.ports import Fence, HandedBack

LEASE_SECONDS = 6  # of the workers in this folder


async def numbers_of(worker):
    """The values of all counters, by name, then by their labels in order."""
    page, _ = await worker.metrics.page("")
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in metrics_in(page.decode()):
        for one in family.samples:
            if one.name.endswith("_total"):
                labels = tuple(one.labels.values())
                found.setdefault(one.name.removesuffix("_total"), {})[labels] = one.value
    return found


async def take_away(worker, task_id):
    """What a reclaim does to a worker that was thought dead."""
    task = await worker.task(task_id)
    await worker.store.memory.settle([HandedBack(Fence(task_id, task.attempt))])


async def test_attempts_are_counted_by_executor_and_outcome(at_work, labourer):
    executors = {"one": labourer(), "two": labourer(error=ExecutorFailed("it broke"))}
    async with at_work(executors=executors) as worker:
        ends = [await worker.submit(), await worker.submit("two", raises="error", max_attempts=2)]
        cancelled = await worker.submit(seconds=100)
        await worker.until(1, lambda: executors["one"].running == 1)
        await worker.cancel(cancelled)
        await worker.until_done(*ends, cancelled)
        await worker.submit("two", seconds=100)
        await worker.until(1, lambda: executors["two"].running == 1)
        await worker.dispatcher.drain(0)
        told = await numbers_of(worker)
    assert told["task_agent_attempts"] == {
        ("one", "completed"): 1,
        ("two", "failed"): 2,
        ("one", "cancelled"): 1,
        ("two", "handed_back"): 1,
    }
    assert told["task_agent_leases_lost"] == {(): 0}
    assert told["task_agent_fenced_writes"] == {(): 0}


async def test_an_attempt_that_was_taken_away_is_a_lost_lease_and_counted_once(at_work):
    async with at_work(most=1) as worker:
        task_id = await worker.submit(seconds=100)
        await worker.until(1, lambda: worker.executor.running)
        await take_away(worker, task_id)
        await worker.until(LEASE_SECONDS, lambda: worker.executor.cancelled)
        await worker.until_done(task_id)
        told = await numbers_of(worker)
    assert told["task_agent_leases_lost"] == {(): 1}
    assert told["task_agent_attempts"] == {("one", "completed"): 1}


async def test_a_lease_that_was_not_sure_any_more_is_a_lost_one(at_work):
    async with at_work(most=1) as worker:
        task_id = await worker.submit(seconds=20)
        await worker.until(1, lambda: worker.executor.running)
        worker.store.failing |= dict.fromkeys(["renew", "interruptions"], StoreUnavailable("gone"))
        await worker.until(LEASE_SECONDS, lambda: worker.executor.cancelled)
        worker.store.failing.clear()
        await worker.until_done(task_id)
        told = await numbers_of(worker)
    assert told["task_agent_leases_lost"] == {(): 1}
    assert told["task_agent_tasks_reclaimed"] == {(): 1}


async def test_a_late_result_is_a_fenced_write(at_work):
    async with at_work(most=1) as worker:
        task_id = await worker.submit(seconds=0.5)
        await worker.until(1, lambda: worker.executor.running)
        await take_away(worker, task_id)
        await worker.until_done(task_id)
        told = await numbers_of(worker)
    assert told["task_agent_fenced_writes"] == {(): 1}
    assert told["task_agent_attempts"] == {("one", "completed"): 1}


async def test_what_an_attempt_says_too_late_is_a_fenced_write(at_work):
    async with at_work(most=1) as worker:
        worker.store.hanging |= {"renew", "interruptions"}
        task_id = await worker.submit(says=["a", "b"], every=0.8, seconds=0.1)
        await worker.until(1, lambda: worker.executor.running)
        await take_away(worker, task_id)
        await worker.until(4, lambda: worker.executor.cancelled)
        told = await numbers_of(worker)
    assert told["task_agent_fenced_writes"] == {(): 1}


async def test_the_lease_of_a_deleted_task_is_a_lost_one(at_work):
    async with at_work(most=1) as worker:
        task_id = await worker.submit(seconds=100)
        await worker.until(1, lambda: worker.executor.running)
        await worker.store.memory.delete(task_id, None)
        await worker.until(LEASE_SECONDS, lambda: worker.executor.cancelled)
        told = await numbers_of(worker)
    assert told["task_agent_leases_lost"] == {(): 1}


async def test_an_outcome_that_waits_for_its_store_is_counted_when_it_is_written(at_work):
    async with at_work(most=1) as worker:
        worker.store.failing["settle"] = StoreUnavailable("gone")
        task_id = await worker.submit()
        await worker.until(5, lambda: worker.store.calls["settle"])
        assert "task_agent_attempts" not in await numbers_of(worker)
        await asyncio.sleep(2 * LEASE_SECONDS)
        worker.store.failing.clear()
        await worker.until_done(task_id)
        await worker.until(5, lambda: not worker.dispatcher._held)
        told = await numbers_of(worker)
    assert told["task_agent_attempts"] == {("one", "completed"): 1}
    assert told["task_agent_leases_lost"] == {(): 0}
    assert told["task_agent_store_failures"].keys() == {("settle",)}
