"""What is claimed, when, and how many at once."""

import asyncio
import random

import pytest

from domain.errors import ExecutorUnavailable
from domain.task import TaskStatus


@pytest.mark.parametrize("seed", range(5))
async def test_no_limit_is_passed_and_every_task_ends_whatever_comes(at_work, labourer, seed):
    chance = random.Random(seed)
    executors = {name: labourer(busy=ExecutorUnavailable("busy")) for name in ("a", "b", "c")}
    async with at_work(most=5, executors=executors, limits={"a": 2, "b": 4}) as worker:
        task_ids = []
        for _ in range(150):
            does: dict[str, object] = {"raises": "busy"} if chance.random() < 0.2 else {}
            does |= {"seconds": chance.choice([0, 0, 0.01, 0.3])}
            task_ids.append(await worker.submit(chance.choice("abc"), **does))
            await asyncio.sleep(chance.choice([0, 0, 0.02]))
        ended = await worker.until_done(*task_ids)
    assert {task.status for task in ended} == {TaskStatus.COMPLETED, TaskStatus.FAILED}
    assert executors["a"].most_running == 2
    assert executors["b"].most_running <= 4
    assert sum(executor.running for executor in executors.values()) == 0
    assert worker.store.most_running == 5


async def test_all_slots_are_used_at_once(at_work):
    async with at_work(most=3) as worker:
        task_ids = [await worker.submit(seconds=1) for _ in range(6)]
        await worker.until_done(*task_ids, within=2.2)
    assert worker.executor.most_running == 3


async def test_a_full_executor_holds_up_no_other(at_work, labourer):
    executors = {"full": labourer(), "free": labourer()}
    async with at_work(most=4, executors=executors, limits={"full": 1}) as worker:
        for _ in range(50):
            await worker.submit("full", seconds=100)
        task_id = await worker.submit("free")
        await worker.until_done(task_id, within=0.1)
        assert executors["full"].running == 1


async def test_tasks_of_two_executors_take_turns_where_there_is_one_slot(at_work, labourer):
    executors = {"a": labourer(), "b": labourer()}
    async with at_work(most=1, executors=executors) as worker:
        for name in "ab":
            for _ in range(10):
                await worker.submit(name, seconds=1)
        await worker.until(10, lambda: sum(len(each.started) for each in executors.values()) == 6)
    assert len(executors["a"].started) == len(executors["b"].started) == 3


async def test_a_hint_starts_a_task_at_once(at_work):
    async with at_work(poll_seconds=3600) as worker:
        await asyncio.sleep(10)
        task_id = await worker.submit()
        await worker.until_done(task_id, within=0.02)


async def test_a_hint_during_a_claim_is_not_lost(at_work):
    async with at_work(poll_seconds=3600) as worker:
        await asyncio.sleep(10)
        memory = worker.store.memory
        claim = memory.claim

        async def claim_and_answer_late(*arguments):
            found = await claim(*arguments)
            await asyncio.sleep(1)
            return found

        memory.claim = claim_and_answer_late
        memory.tell_work()  # for nothing: the claim that follows finds no task
        await asyncio.sleep(0.5)
        task_id = await worker.submit()
        await worker.until_done(task_id, within=1.6)


async def test_polling_alone_is_enough(at_work):
    async with at_work(poll_seconds=5) as worker:
        worker.store.hints = False
        await asyncio.sleep(7)
        task_id = await worker.submit()
        await worker.until_done(task_id, within=5.1)


async def test_a_waiting_task_costs_no_asyncio_task(at_work):
    async with at_work(most=2) as worker:
        await asyncio.sleep(1)
        before = len(asyncio.all_tasks())
        for _ in range(500):
            await worker.submit(seconds=1000)
        await asyncio.sleep(5)
        assert len(asyncio.all_tasks()) - before == 2


async def test_a_claim_that_fails_is_repeated_before_the_next_poll(at_work):
    async with at_work(poll_seconds=3600) as worker:
        await asyncio.sleep(10)
        worker.store.failing["claim"] = RuntimeError("no connection")
        task_id = await worker.submit()
        await asyncio.sleep(2)
        del worker.store.failing["claim"]
        await worker.until_done(task_id, within=1.1)


async def test_a_task_of_an_executor_that_is_not_configured_is_left_alone(at_work):
    async with at_work() as worker:
        stranger = await worker.submit("elsewhere")
        await worker.until_done(await worker.submit())
        assert (await worker.task(stranger)).attempt == 0


async def test_nothing_is_claimed_for_an_executor_that_says_it_has_no_room(at_work, labourer):
    down = labourer()
    down.left = 0
    async with at_work(executors={"down": down, "up": labourer()}, most=2) as worker:
        waiting = [await worker.submit("down") for _ in range(5)]
        await worker.until_done(*[await worker.submit("up") for _ in range(5)])
        assert [(await worker.task(one)).attempt for one in waiting] == [0] * 5
        down.left = 1
        await worker.until_done(*waiting)
