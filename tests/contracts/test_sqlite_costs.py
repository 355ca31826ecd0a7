"""What SQLite's statements cost does not grow with the tasks that are kept, or wait."""

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from math import inf
from pathlib import Path
from typing import Any

import pytest

from adapters.stores.sqlite import SqliteOptions, SqliteTaskStore
from adapters.stores.sqlite.statements import SQL
from adapters.testing.fakes import FakeClock
from adapters.testing.store_case import (
    BUSY,
    ERROR,
    LEASE,
    NO_LIMITS,
    RESULT,
    USAGE,
    WORKER,
    new_task,
)
from domain.errors import StoreUnavailable
from domain.ports import (
    Cancelled,
    Completed,
    Failed,
    Fence,
    HandedBack,
    Outcome,
    Retry,
    SubmitLimits,
    TaskCounts,
)
from domain.query import TaskQuery
from domain.retention import RetentionPolicy
from domain.task import ANONYMOUS, Idempotency, NewTask

FEW, MANY = 2_000, 20_000
HOUR = 3600.0
FAR_OFF = RetentionPolicy(retention_seconds=86_400, max_tasks=1_000_000)
LIMITS = SubmitLimits(max_pending=1_000_000, retention=FAR_OFF)


@asynccontextmanager
async def opened(directory: Path, clock: FakeClock | None = None) -> AsyncIterator[SqliteTaskStore]:
    options = SqliteOptions(path=str(directory / "tasks.db"), durability="normal")
    async with SqliteTaskStore(options, clock or FakeClock()) as store:
        yield store


async def finish(store: SqliteTaskStore, tasks: int) -> None:
    """So many finished tasks."""
    await store.submit([new_task() for _ in range(tasks)], NO_LIMITS)
    claims = await store.claim(WORKER, {"echo": tasks}, LEASE)
    await store.settle([Completed(claim.fence, RESULT, USAGE) for claim in claims])


async def delay(store: SqliteTaskStore, tasks: int) -> None:
    """So many tasks that are due in an hour."""
    await store.submit([new_task(delay_seconds=HOUR) for _ in range(tasks)], NO_LIMITS)


async def line_up(store: SqliteTaskStore, tasks: int) -> None:
    """So many tasks in turn."""
    await store.submit([new_task() for _ in range(tasks)], NO_LIMITS)


BY_ID = "INDEX sqlite_autoindex_task_1 (id=?)"
IN_TURN = "INDEX task_pending (executor=? AND is_waiting=? AND status=?"
OF_OWNER = "INDEX task_of_owner (owner=? AND created_at>? AND created_at<?)"
HOT: dict[str, tuple[str, ...]] = {
    "get_task": (BY_ID,),
    "get_payload": (BY_ID,),
    "standing": (BY_ID,),
    "append_to_task": (BY_ID,),
    "append_event": (),
    "usage_lines": (),
    "forget_events": ("PRIMARY KEY (number=? AND event<?)", BY_ID),
    "read_log": ("PRIMARY KEY (number=? AND event>?)", BY_ID),
    "last_output": ("PRIMARY KEY (number=?)", BY_ID),
    "running_attempt": (BY_ID,),
    "find_newest_first": (OF_OWNER,),
    "find_oldest_first": (OF_OWNER,),
    "found_task": ("INTEGER PRIMARY KEY (rowid=?)",),
    "owners": ("COVERING INDEX task_of_owner (owner>?)",),
    "key_holder": ("INDEX task_key (owner=? AND idempotency_key=?)",),
    "free_key": ("INDEX task_key (owner=? AND idempotency_key=?)",),
    "queue_position": (
        f"COVERING {IN_TURN} AND rank<?)",
        "INDEX task_waiting (due_at<?)",
    ),
    "queue_lines": ("INDEX task_pending", "INDEX task_running"),
    "pending_executors": ("COVERING INDEX task_pending (executor>?)",),
    "next_in_turn": (f"{IN_TURN})", "INDEX task_waiting (due_at<?)"),
    "claim_due": (f"{IN_TURN})",),
    "claim_task": (BY_ID,),
    "first_due": ("INDEX task_waiting",),
    "ripen_tasks": ("INDEX task_waiting (due_at<?)",),
    "renew_lease": (BY_ID,),
    "finish_task": (BY_ID,),
    "finish_result": (BY_ID,),
    "move_task": (BY_ID,),
    "delete_task": (BY_ID,),
    "expire_tasks": ("INDEX task_deadline (deadline<?)",),
    "reclaim_expired": ("INDEX task_running (lease_until<?)",),
    "expire_leases": ("INDEX task_running",),
    "reroute_pending": ("INDEX task_pending",),
    "reroute_tasks": ("INDEX task_pending (executor=?)",),
    "purge_expired": ("INDEX task_finished (completed_at<?)",),
    "purge_excess": ("INDEX task_finished_by_creation",),
    "oldest_completion": ("INDEX task_finished",),
}
SORTED_OF_LITTLE = {"reroute_pending", "queue_lines", "next_in_turn"}


@pytest.mark.parametrize("statement", HOT)
def test_a_statement_finds_its_tasks_by_an_index(tmp_path: Path, statement: str) -> None:
    async def plan() -> str:
        async with opened(tmp_path):
            pass
        with closing(sqlite3.connect(tmp_path / "tasks.db")) as connection:
            values: Any = Anything()
            rows = connection.execute(f"EXPLAIN QUERY PLAN {SQL[statement]}", values).fetchall()
            return "\n".join(row[3] for row in rows)

    found = asyncio.run(plan())
    assert all(index in found for index in HOT[statement]), found
    assert "SCAN task\n" not in found + "\n"
    assert "TEMP B-TREE" not in found or statement in SORTED_OF_LITTLE


class Anything(dict[str, int]):
    """A value for every name."""

    def __missing__(self, name: str) -> int:
        return 1


Step = Callable[[SqliteTaskStore], Awaitable[object]]
NOWHERE = Fence("nowhere", 1)
KEYED = new_task(idempotency=Idempotency("key", b"the same"))
STEPS: dict[str, Step] = {
    "submit": lambda store: store.submit([new_task()], LIMITS),
    "submit with a key": lambda store: store.submit([KEYED], LIMITS),
    "submit with a key again": lambda store: store.submit([KEYED], LIMITS),
    "get": lambda store: store.get(KEYED.id, ANONYMOUS),
    "find": lambda store: store.find(TaskQuery(owner=ANONYMOUS)),
    "find what is not there": lambda store: store.find(TaskQuery(owner=None, executor="gone")),
    "queue_position": lambda store: store.queue_position(KEYED.accepted(0)),
    "backlog_seconds": lambda store: store.backlog_seconds(),
    "standings": lambda store: store.standings([KEYED.id]),
    "log": lambda store: store.log(KEYED.id, ANONYMOUS, 0, 100),
    "interruptions": lambda store: store.interruptions([NOWHERE]),
    "claim": lambda store: store.claim(WORKER, {"echo": 1, "other": 1}, LEASE),
    "claim of nothing": lambda store: store.claim(WORKER, {"other": 1}, LEASE),
    "expire of nothing": lambda store: store.expire(100),
    "request_cancel": lambda store: store.request_cancel(KEYED.id, ANONYMOUS),
    "delete": lambda store: store.delete(KEYED.id, ANONYMOUS),
    "counts": lambda store: store.counts(),
    "purge of nothing": lambda store: store.purge(FAR_OFF, 100),
    "reclaim of nothing": lambda store: store.reclaim(5, 100),
    "check": lambda store: store.check(),
}


@pytest.mark.parametrize("fill", [finish, delay, line_up])
def test_no_step_costs_more_with_ten_times_as_many_tasks(
    tmp_path: Path, fill: Callable[[SqliteTaskStore, int], Awaitable[None]]
) -> None:
    async def costs(tasks: int) -> dict[str, int]:
        async with opened(tmp_path / str(tasks)) as store:
            await fill(store, tasks)
            return {name: await cost(store, step) for name, step in STEPS.items()}

    few, many = asyncio.run(costs(FEW)), asyncio.run(costs(MANY))
    assert few["submit"] > 0
    assert many == {name: pytest.approx(steps, abs=20) for name, steps in few.items()}


def test_looking_at_the_queue_costs_no_more_with_many_finished_tasks(
    tmp_path: Path,
) -> None:
    async def costs(tasks: int) -> int:
        async with opened(tmp_path / str(tasks)) as store:
            await finish(store, tasks)
            await line_up(store, 10)
            return await cost(store, lambda store: store.queue(ANONYMOUS))

    assert asyncio.run(costs(FEW)) == pytest.approx(asyncio.run(costs(10)), abs=20)


async def cost(store: SqliteTaskStore, step: Step) -> int:
    """Instructions of SQLite's virtual machine."""
    instructions = 0

    def count() -> int:
        nonlocal instructions
        instructions += 1
        return 0

    for connection in (store._writing, store._reading):
        connection.set_progress_handler(count, 1)
    await step(store)
    for connection in (store._writing, store._reading):
        connection.set_progress_handler(None, 1)
    return instructions


def test_room_below_zero_is_no_room_though_to_sqlite_it_is_no_limit(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.submit([new_task()], NO_LIMITS)
            assert await store.claim(WORKER, {"echo": -1}, LEASE) == []

    asyncio.run(scenario())


def test_opening_counts_no_tasks(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await finish(store, 3)
        with closing(sqlite3.connect(tmp_path / "tasks.db", isolation_level=None)) as connection:
            connection.execute("UPDATE task_count SET completed = 1000003")
        async with opened(tmp_path) as store:
            assert await store.counts() == TaskCounts(completed=1_000_003)

    asyncio.run(scenario())


@pytest.mark.parametrize("seed", range(3))
def test_the_numbers_are_those_of_the_rows_whatever_happened(tmp_path: Path, seed: int) -> None:
    async def scenario() -> None:
        clock, roll = FakeClock(), random.Random(seed)
        async with opened(tmp_path, clock) as store:
            for _ in range(60):
                await something(store, clock, roll)
                rows = "SELECT status, count(*) FROM task GROUP BY status"
                assert await store.counts() == TaskCounts(**dict(store._writing.execute(rows)))
                numbers = store._tables._numbers
                assert numbers.oldest_completion == number(store, "oldest_completion")
                assert (numbers.first_due or inf) <= (number(store, "first_due") or inf)
            before = await store.counts()
        async with opened(tmp_path, clock) as store:
            assert await store.counts() == before
            kept = "SELECT count(*) FROM task_payload"
            assert store._writing.execute(kept).fetchone() == (before.total,)
            results = "SELECT count(*) FROM task_result"
            assert store._writing.execute(results).fetchone() == (before.completed,)

    asyncio.run(scenario())


def number(store: SqliteTaskStore, statement: str) -> int | None:
    [[value]] = store._writing.execute(SQL[statement])
    return None if value is None else int(value)


async def something(store: SqliteTaskStore, clock: FakeClock, roll: random.Random) -> None:
    """Some steps at once, one of which fails."""
    clock.advance(roll.choice([0, 1, LEASE + 1]))
    limits = SubmitLimits(max_pending=20, retention=RetentionPolicy(LEASE * 9, max_tasks=90))
    claims = await store.claim(WORKER, {"echo": roll.randint(0, 8)}, LEASE)
    known = await store.find(TaskQuery(owner=ANONYMOUS))
    ways: list[Callable[[Fence], Outcome]] = [
        lambda fence: Completed(fence, RESULT, USAGE),
        lambda fence: Failed(fence, ERROR),
        lambda fence: Retry(fence, BUSY, 1.0),
        HandedBack,
        Cancelled,
    ]
    twice = new_task()
    answers = await asyncio.gather(
        store.submit([some_task(roll) for _ in range(roll.randint(1, 9))], limits),
        store.settle([roll.choice(ways)(claim.fence) for claim in claims if roll.random() < 0.8]),
        store.submit([twice, twice], LIMITS),
        *[
            store.request_cancel(one.task.id, ANONYMOUS)
            for one in known.found
            if roll.random() < 0.1
        ],
        *[store.delete(one.task.id, ANONYMOUS) for one in known.found if roll.random() < 0.02],
        store.expire(limit=2),
        store.reclaim(max_crashes=1, limit=3),
        store.purge(limits.retention, limit=2),
        store.get(twice.id, ANONYMOUS),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers if isinstance(answer, Exception)] == [
        StoreUnavailable
    ]


def some_task(roll: random.Random) -> NewTask:
    return new_task(
        delay_seconds=roll.choice([None, None, LEASE]),
        deadline_seconds=roll.choice([None, None, LEASE]),
        idempotency=roll.choice([None, None, Idempotency(roll.choice("abc"), b"the same")]),
    )
