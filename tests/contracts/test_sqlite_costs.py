"""What SQLite's statements cost does not grow with the finished tasks that are kept."""

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
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
    Completed,
    Failed,
    Fence,
    HandedBack,
    Outcome,
    Retry,
    SubmitLimits,
    TaskCounts,
)
from domain.retention import RetentionPolicy
from domain.task import ANONYMOUS

FINISHED = 20_000
FAR_OFF = RetentionPolicy(retention_seconds=86_400, max_tasks=1_000_000)
LIMITS = SubmitLimits(max_pending=1_000_000, retention=FAR_OFF)


@asynccontextmanager
async def opened(directory: Path, clock: FakeClock | None = None) -> AsyncIterator[SqliteTaskStore]:
    options = SqliteOptions(path=str(directory / "tasks.db"), durability="normal")
    async with SqliteTaskStore(options, clock or FakeClock()) as store:
        yield store


async def fill(store: SqliteTaskStore, tasks: int) -> None:
    """So many finished tasks."""
    await store.submit([new_task() for _ in range(tasks)], NO_LIMITS)
    claims = await store.claim(WORKER, {"echo": tasks}, LEASE)
    await store.settle([Completed(claim.fence, RESULT, USAGE) for claim in claims])


HOT: dict[str, tuple[str, ...]] = {
    "get_task": ("INDEX sqlite_autoindex_task_1 (id=?)",),
    "claim_due": ("INDEX task_due (executor=? AND rank<?)",),
    "claim_task": ("INDEX sqlite_autoindex_task_1 (id=?)",),
    "renew_lease": ("INDEX sqlite_autoindex_task_1 (id=?)",),
    "settle_task": ("INDEX sqlite_autoindex_task_1 (id=?)",),
    "reclaim_expired": ("INDEX task_running (lease_until<?)",),
    "reclaim_task": ("INDEX",),
    "expire_leases": ("INDEX task_running",),
    "reroute_pending": ("INDEX task_due",),
    "reroute_tasks": ("INDEX task_due (executor=?)",),
    "purge_expired": ("INDEX task_finished (completed_at<?)",),
    "purge_excess": ("INDEX task_finished_by_creation",),
    "oldest_completion": ("INDEX task_finished",),
}


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
    assert "TEMP B-TREE" not in found or statement == "reroute_pending"


class Anything(dict[str, int]):
    """A value for every name."""

    def __missing__(self, name: str) -> int:
        return 1


Step = Callable[[SqliteTaskStore], Awaitable[object]]
STEPS: dict[str, Step] = {
    "submit": lambda store: store.submit([new_task()], LIMITS),
    "claim": lambda store: store.claim(WORKER, {"echo": 1, "other": 1}, LEASE),
    "claim of nothing": lambda store: store.claim(WORKER, {"other": 1}, LEASE),
    "counts": lambda store: store.counts(),
    "purge of nothing": lambda store: store.purge(FAR_OFF, 100),
    "reclaim of nothing": lambda store: store.reclaim(5, 100),
    "check": lambda store: store.check(),
}


def test_no_step_costs_more_with_twenty_thousand_finished_tasks(tmp_path: Path) -> None:
    async def costs(finished: int) -> dict[str, int]:
        directory = tmp_path / str(finished)
        async with opened(directory) as store:
            await fill(store, finished)
            return {name: await cost(store, step) for name, step in STEPS.items()}

    empty, full = asyncio.run(costs(0)), asyncio.run(costs(FINISHED))
    assert empty["submit"] > 0
    assert full == {name: pytest.approx(steps, abs=20) for name, steps in empty.items()}


async def cost(store: SqliteTaskStore, step: Step) -> int:
    """Instructions of SQLite's virtual machine."""
    instructions = 0

    def count() -> int:
        nonlocal instructions
        instructions += 1
        return 0

    store._writing.set_progress_handler(count, 1)
    await step(store)
    store._writing.set_progress_handler(None, 1)
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
            await fill(store, 3)
        with closing(sqlite3.connect(tmp_path / "tasks.db", isolation_level=None)) as connection:
            connection.execute("UPDATE task_count SET completed = 1000003")
        async with opened(tmp_path) as store:
            assert await store.counts() == TaskCounts(completed=1_000_003)

    asyncio.run(scenario())


@pytest.mark.parametrize("seed", range(3))
def test_the_counts_are_those_of_the_rows_whatever_happened(tmp_path: Path, seed: int) -> None:
    async def scenario() -> None:
        clock, roll = FakeClock(), random.Random(seed)
        async with opened(tmp_path, clock) as store:
            for _ in range(60):
                await something(store, clock, roll)
                rows = "SELECT status, count(*) FROM task GROUP BY status"
                assert await store.counts() == TaskCounts(**dict(store._writing.execute(rows)))
            before = await store.counts()
        async with opened(tmp_path, clock) as store:
            assert await store.counts() == before
            kept = "SELECT count(*) FROM task_payload"
            assert store._writing.execute(kept).fetchone() == (before.total,)
            results = "SELECT count(*) FROM task_result"
            assert store._writing.execute(results).fetchone() == (before.completed,)

    asyncio.run(scenario())


async def something(store: SqliteTaskStore, clock: FakeClock, roll: random.Random) -> None:
    """Some steps at once, one of which fails."""
    clock.advance(roll.choice([0, 1, LEASE + 1]))
    limits = SubmitLimits(max_pending=20, retention=RetentionPolicy(LEASE * 4, max_tasks=40))
    claims = await store.claim(WORKER, {"echo": roll.randint(0, 8)}, LEASE)
    ways: list[Callable[[Fence], Outcome]] = [
        lambda fence: Completed(fence, RESULT, USAGE),
        lambda fence: Failed(fence, ERROR),
        lambda fence: Retry(fence, BUSY, 1.0),
        HandedBack,
    ]
    twice = new_task()
    answers = await asyncio.gather(
        store.submit([new_task() for _ in range(roll.randint(1, 9))], limits),
        store.settle([roll.choice(ways)(claim.fence) for claim in claims if roll.random() < 0.8]),
        store.submit([twice, twice], LIMITS),
        store.reclaim(max_crashes=1, limit=3),
        store.purge(limits.retention, limit=2),
        store.get(twice.id, ANONYMOUS),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers if isinstance(answer, Exception)] == [
        StoreUnavailable
    ]
