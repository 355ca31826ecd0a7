"""The three ports of a store on PostgreSQL, which carries durability, locking and time.

Each method is one statement, in a file named after it, and so one transaction and one round trip.
Submits that wait at once share a statement, and so do outcomes (`sharing`). A connection that is
lost or silent is replaced (`connections`). Leases are renewed on one of their own, which no queue
for the others can hold up. Hints travel by NOTIFY (`hints`), and may be lost.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from itertools import groupby, islice
from types import TracebackType
from typing import ClassVar, Final, Self

import asyncpg
from msgspec import Struct

from adapters.json_columns import json_text
from adapters.sql_files import statements_of
from adapters.stores.postgres.connections import LOST, Connections
from adapters.stores.postgres.hints import Hints
from adapters.stores.postgres.opening import make_ready
from adapters.stores.postgres.room import Room
from adapters.stores.postgres.rows import (
    claim_of,
    microseconds,
    settled,
    submitted,
    task_of,
)
from adapters.stores.postgres.sharing import SharedCall
from domain.errors import StoreUnavailable, StoreUnusable
from domain.inference import Routes
from domain.ports import (
    PURGED_PER_SUBMIT,
    Accepted,
    Claim,
    Clock,
    Fence,
    Outcome,
    QueueFull,
    Reclaimed,
    SubmitLimits,
    TaskCounts,
)
from domain.retention import RetentionPolicy
from domain.task import NewTask, Task, TaskStatus, worker_lost

SQL: Final = statements_of(__package__)

ANSWER_SECONDS: Final = 10.0
_CONNECT_SECONDS: Final = 5.0
_CALLS_PER_STATEMENT: Final = 500
SESSION: Final = {
    "jit": "off",  # so a claim is not compiled anew each time, for a hundred times what it takes
    "statement_timeout": "8s",  # so a server that is slow, not gone, says so before we give it up
    "tcp_keepalives_idle": "30",  # so it frees the places of processes that vanished
}


class PostgresOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the server is (`postgresql://user@host:port/database`), and how many connections."""

    dsn: str
    pool_size: int = 10
    migrate_on_start: bool = True


class _Submit(Struct, frozen=True):
    """One call of `submit`, on its way into a statement that it shares."""

    new_tasks: Sequence[NewTask]
    limits: SubmitLimits


class PostgresTaskStore:
    """All three ports of a store, for any number of processes on one database."""

    options_type: ClassVar[type[Struct]] = PostgresOptions
    is_shared: ClassVar[bool] = True

    def __init__(self, options: PostgresOptions, clock: Clock) -> None:
        """Of the clock only `monotonic` is used: every instant is the server's."""
        self._options = options
        self._clock = clock
        self._room = Room()
        self._connections = Connections(self._connect, options.pool_size)
        self._renewals = Connections(self._connect, 1)
        self._hints = Hints(self._connect)
        self._submits = SharedCall(self._submit_together, _CALLS_PER_STATEMENT)
        self._settles = SharedCall(self._settle_together, _CALLS_PER_STATEMENT)
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opening:
            await self._open(opening)
            self._opened = opening.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._opened.aclose()

    async def _open(self, opening: AsyncExitStack) -> None:
        opening.push_async_callback(self._connections.aclose)
        opening.push_async_callback(self._renewals.aclose)
        try:
            connection = await self._connect()
            try:
                await make_ready(connection, migrate=self._options.migrate_on_start)
            finally:
                await connection.close(timeout=_CONNECT_SECONDS)
            await self._renewals.open_first()
        except LOST as error:
            raise StoreUnusable("in PostgreSQL", str(error) or type(error).__name__) from error
        await opening.enter_async_context(self._hints)
        opening.push_async_callback(self._settles.aclose)
        opening.push_async_callback(self._submits.aclose)

    async def _connect(self) -> asyncpg.Connection:
        return await asyncpg.connect(
            self._options.dsn,
            timeout=_CONNECT_SECONDS,
            command_timeout=ANSWER_SECONDS,
            server_settings=SESSION,
        )

    async def _fetch(self, statement: str, *values: object) -> list[asyncpg.Record]:
        """The rows of one statement, which is one transaction."""
        return await _answer(self._connections.fetch(statement, *values), ANSWER_SECONDS)

    # --- TaskStore ---------------------------------------------------------------------------

    async def submit(
        self, new_tasks: Sequence[NewTask], limits: SubmitLimits
    ) -> list[Accepted | QueueFull]:
        """See `TaskStore.submit`."""
        if not new_tasks:
            return []
        answers = await self._submits(_Submit(new_tasks, limits))
        self._hints.work()
        return answers

    async def get(self, task_id: str, owner: str) -> Task | None:
        """See `TaskStore.get`."""
        if "\0" in task_id:  # no text of PostgreSQL's holds it, and so no id does
            return None
        rows = await self._fetch(SQL["get_task"], task_id, owner)
        return task_of(rows[0]) if rows else None

    async def counts(self) -> TaskCounts:
        """See `TaskStore.counts`: the sum of the counters of all connections."""
        [row] = await self._fetch(SQL["count_tasks"])
        return TaskCounts(**row)

    async def purge(self, retention: RetentionPolicy, limit: int) -> int:
        """See `TaskStore.purge`."""
        return await self._purge(retention, limit, arriving=0)

    async def check(self) -> None:
        """See `TaskStore.check`: a round trip that takes a write lock, and gives it back."""
        await self._fetch(SQL["check_store"])

    # --- TaskQueue ---------------------------------------------------------------------------

    async def claim(
        self, worker: str, room: Mapping[str, int], lease_seconds: float
    ) -> list[Claim]:
        """See `TaskQueue.claim`."""
        names = [name for name, free in room.items() if free > 0]
        free = [room[name] for name in names]
        if not names:
            return []
        lease = microseconds(lease_seconds)
        rows = await self._fetch(SQL["claim_tasks"], worker, names, free, lease)
        return [claim_of(row) for row in rows]

    async def renew(self, fences: Collection[Fence], lease_seconds: float) -> set[Fence]:
        """See `TaskQueue.renew`. It gives up early enough to be tried again within the lease."""
        renewing = self._renewals.fetch(
            SQL["renew_leases"],
            [fence.task_id for fence in fences],
            [fence.attempt for fence in fences],
            microseconds(lease_seconds),
        )
        held = await _answer(renewing, min(ANSWER_SECONDS, max(1.0, lease_seconds / 3)))
        return {Fence(row["id"], row["attempt"]) for row in held}

    async def settle(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """See `TaskQueue.settle`."""
        if not outcomes:
            return []
        written = await self._settles(outcomes)
        self._hints.work()
        return written

    async def reclaim(self, max_crashes: int, limit: int) -> list[Reclaimed]:
        """See `TaskQueue.reclaim`."""
        error = json_text(worker_lost(max_crashes))
        rows = await self._fetch(SQL["reclaim_tasks"], max_crashes, limit, error)
        if rows:
            self._hints.work()
        return [
            Reclaimed(Fence(row["id"], row["attempt"]), TaskStatus(row["status"])) for row in rows
        ]

    async def reroute(self, executors: Collection[str], routes: Routes) -> int:
        """See `TaskQueue.reroute`."""
        models, chosen = list(routes.by_model), list(routes.by_model.values())
        moved = await self._fetch(
            SQL["reroute_tasks"], list(executors), models, chosen, routes.fallback
        )
        if moved:
            self._hints.work()
        return len(moved)

    # --- TaskFeed ----------------------------------------------------------------------------

    def on_work(self, listener: Callable[[], None]) -> Callable[[], None]:
        """See `TaskFeed.on_work`."""
        return self._hints.on_work(listener)

    # --- shared statements -------------------------------------------------------------------

    async def _submit_together(
        self, submits: Sequence[_Submit]
    ) -> list[list[Accepted | QueueFull]]:
        """Answer these calls; those with the same limits (all, in a service) share a statement."""
        answers: list[list[Accepted | QueueFull]] = []
        for limits, same in groupby(submits, key=lambda submit: submit.limits):
            calls = [submit.new_tasks for submit in same]
            rows = iter(await self._submit_all([new for call in calls for new in call], limits))
            answers += [list(islice(rows, len(call))) for call in calls]
        return answers

    async def _submit_all(
        self, new_tasks: Sequence[NewTask], limits: SubmitLimits
    ) -> list[Accepted | QueueFull]:
        arriving = len(new_tasks)
        if self._room.is_short(limits.retention, arriving, self._clock.monotonic()):
            await self._purge(limits.retention, PURGED_PER_SUBMIT, arriving)
        rows = await self._fetch(SQL["submit_tasks"], *submitted(new_tasks), limits.max_pending)
        self._room.total = rows[-1]["total"]
        return [
            QueueFull(row["pending"])
            if row["created_at"] is None
            else Accepted(new.accepted(row["created_at"]))
            for new, row in zip(new_tasks, rows, strict=True)
        ]

    async def _settle_together(self, calls: Sequence[Sequence[Outcome]]) -> list[list[bool]]:
        """Settle these in one statement; of several for one attempt, the first one counts."""
        first: dict[Fence, Outcome] = {}
        counting = [
            [first.setdefault(outcome.fence, outcome) is outcome for outcome in call]
            for call in calls
        ]
        rows = await self._fetch(SQL["settle_attempts"], *settled(list(first.values())))
        written = {Fence(row["id"], row["attempt"]) for row in rows}
        return [
            [
                counts and outcome.fence in written
                for outcome, counts in zip(call, firsts, strict=True)
            ]
            for call, firsts in zip(calls, counting, strict=True)
        ]

    async def _purge(self, retention: RetentionPolicy, limit: int, arriving: int) -> int:
        age = microseconds(retention.retention_seconds) if retention.retention_seconds else None
        [row] = await self._fetch(SQL["purge_tasks"], age, retention.max_tasks, limit, arriving)
        oldest = None if row["oldest"] is None else row["oldest"] / 1_000_000
        self._room.looked(retention, row["total"], oldest, self._clock.monotonic())
        removed: int = row["removed"]
        return removed


async def _answer(
    fetching: Awaitable[list[asyncpg.Record]], seconds: float
) -> list[asyncpg.Record]:
    """The rows, if they come in so many seconds; what keeps them from coming is `StoreUnavailable`.

    But for a value that no column holds: no other try would mend it.
    """
    try:
        async with asyncio.timeout(seconds):
            return await fetching
    except asyncpg.DataError:
        raise
    except LOST as error:
        raise StoreUnavailable(type(error).__name__) from error
