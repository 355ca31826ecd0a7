"""What the memory store keeps of tasks that left, and how it finds the next one."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from adapters.stores.memory import MemoryOptions, MemoryTaskStore, owners, queues
from adapters.stores.memory.queues import SortedQueue
from adapters.stores.memory.rows import Row
from adapters.testing.fakes import FakeClock
from adapters.testing.store_case import LEASE, NO_LIMITS, RESULT, WORKER, new_task
from domain.ports import Completed
from domain.query import TaskQuery
from domain.task import ANONYMOUS

FEW = 5
LETTERS = 100_000

Leave = Callable[[MemoryTaskStore, str], Coroutine[Any, Any, None]]


@pytest.fixture(autouse=True)
def _few_stale_entries_are_borne(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "STALE_BORNE", FEW)
    monkeypatch.setattr(owners, "STALE_BORNE", FEW)


def numbered(number: int, instant: int) -> Row:
    return Row(instant, number, new_task().accepted(instant), b"", b"", None)


def place(row: Row) -> tuple[int, int]:
    return row.created_at, row.number


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["push", "push", "push", "leave", "leave", "pop"]), st.integers(0, 9)
    ),
    min_size=40,
    max_size=80,
)


@settings(phases=[Phase.reuse, Phase.generate])
@given(STEPS)
def test_a_queue_gives_what_is_left_of_it_in_order(steps: list[tuple[str, int]]) -> None:
    queue = SortedQueue(lambda row: row.created_at, lambda row: row.is_removed)
    left: list[Row] = []
    for number, (step, drawn) in enumerate(steps):
        if step == "push":
            row = numbered(number, drawn)
            queue.push(row)
            left = sorted([*left, row], key=place)
        elif step == "pop":
            assert queue.pop() is (left.pop(0) if left else None)
        elif drawn < len(left):
            left.pop(drawn).remove()
        assert queue.first() is (left[0] if left else None)
        for ahead, row in enumerate(left):
            assert queue.number_before(row, most=4) == min(ahead, 4)


@pytest.mark.parametrize("instants", [range(1_000), range(1_000, 0, -1)])
def test_a_queue_that_all_leave_does_not_grow(instants: range) -> None:
    queue = SortedQueue(lambda row: row.created_at, lambda row: row.is_removed)
    queue.push(numbered(0, 500))  # stays, so that nobody comes up
    for number, instant in enumerate(instants, 1):
        row = numbered(number, 500 + instant)
        queue.push(row)
        row.remove()
        assert len(queue._in_order) + len(queue._others) <= 3 * FEW


async def cancel(store: MemoryTaskStore, task_id: str) -> None:
    await store.request_cancel(task_id, ANONYMOUS)
    await store.delete(task_id, ANONYMOUS)


async def delete(store: MemoryTaskStore, task_id: str) -> None:
    await store.delete(task_id, ANONYMOUS)


async def complete(store: MemoryTaskStore, task_id: str) -> None:
    [claim] = await store.claim(WORKER, {"echo": 1}, LEASE)
    await store.settle([Completed(claim.fence, RESULT, None)])
    await store.delete(task_id, ANONYMOUS)


@pytest.mark.parametrize("leave", [cancel, delete, complete])
def test_a_task_that_left_leaves_next_to_nothing_behind(leave: Leave) -> None:
    async def scene() -> None:
        store = MemoryTaskStore(MemoryOptions(), FakeClock())
        await store.submit([new_task(executor="idle", deadline_seconds=1)], NO_LIMITS)
        for _ in range(100):
            new = new_task(input=b'"%s"' % (b"x" * LETTERS), deadline_seconds=9)
            await store.submit([new], NO_LIMITS)
            await leave(store, new.id)
        [owned] = store._owned.values()
        assert len(store._rows) == len(owned.live) == 1
        assert len(owned._rows) <= 3 * FEW
        assert sum(len(row.input) for row in owned._rows) < LETTERS

    asyncio.run(scene())


def test_finished_tasks_are_not_counted_one_by_one_for_the_queue() -> None:
    async def scene() -> None:
        store = MemoryTaskStore(MemoryOptions(), FakeClock())
        await store.submit([new_task() for _ in range(10)], NO_LIMITS)
        claims = await store.claim(WORKER, {"echo": 8}, LEASE)
        await store.settle([Completed(claim.fence, RESULT, None) for claim in claims])
        assert len(store._owned[ANONYMOUS].live) == 2

    asyncio.run(scene())


def test_whoever_asks_for_the_tasks_of_nobody_leaves_no_trace() -> None:
    async def scene() -> None:
        store = MemoryTaskStore(MemoryOptions(), FakeClock())
        await store.find(TaskQuery(owner="nobody"))
        await store.queue("nobody")
        assert not store._owned

    asyncio.run(scene())


def test_what_many_tasks_have_in_common_is_kept_once() -> None:
    async def scene() -> None:
        store = MemoryTaskStore(MemoryOptions(), FakeClock())
        for _ in range(2):
            await store.submit([new_task(options=bytes(bytearray(b'{"model": "m"}')))], NO_LIMITS)
        one, other = store._rows.values()
        assert one.options is other.options
        assert one.task.rank is one.task.due_at is one.task.created_at is one.created_at

    asyncio.run(scene())
