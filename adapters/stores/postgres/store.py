"""The three ports of a store on PostgreSQL, which carries durability, locking and time.

Each method is one statement, in a file named after it, and so one transaction and one round trip.
Submits that wait at once share a statement, and so do outcomes (`sharing`). A connection that is
lost or silent is replaced (`connections`). Leases are renewed on one of their own, which no queue
for the others can hold up. Hints travel by NOTIFY (`hints`), and may be lost.
"""

import asyncio
from collections.abc import Awaitable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from itertools import groupby, islice
from types import TracebackType
from typing import Any, ClassVar, Final, Self

import asyncpg
from msgspec import Struct

from adapters.json_columns import json_text
from adapters.sql_files import statements_of
from adapters.stores.postgres.connections import LOST, Connections
from adapters.stores.postgres.hints import Hints
from adapters.stores.postgres.opening import make_ready
from adapters.stores.postgres.room import Room
from adapters.stores.postgres.rows import (
    appended,
    asked,
    claim_of,
    columns_of,
    log_page_of,
    microseconds,
    page_of,
    queue_view_of,
    settled,
    submitted,
    task_of,
)
from adapters.stores.postgres.sharing import SharedCall
from domain.errors import StoreUnavailable, StoreUnusable
from domain.events import LogPage
from domain.inference import Routes
from domain.ports import (
    KEY_KEPT_SECONDS,
    LONGEST_POSITION,
    PURGED_PER_SUBMIT,
    Accepted,
    Claim,
    Clock,
    Entry,
    Fence,
    Interruption,
    Mismatch,
    Outcome,
    Payload,
    QueueFull,
    QueueView,
    Reclaimed,
    Replayed,
    Standing,
    SubmitAnswer,
    SubmitLimits,
    TaskCounts,
)
from domain.query import Page, TaskQuery
from domain.retention import RetentionPolicy
from domain.task import DEADLINE_EXCEEDED, WORKER_LOST, NewTask, Task, TaskStatus, worker_lost

SQL: Final = statements_of(__package__)

ANSWER_SECONDS: Final = 10.0
_CONNECT_SECONDS: Final = 5.0
_TRIES: Final = 3
_KEY_KEPT: Final = microseconds(KEY_KEPT_SECONDS)
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
        self._hints = Hints(self._connect, clock.monotonic)
        self._submits = SharedCall(self._submit_together, _CALLS_PER_STATEMENT)
        self._settles = SharedCall(self._settle_together, _CALLS_PER_STATEMENT)
        self._opened = AsyncExitStack()
        self.on_work = self._hints.on_work
        self.on_cancel = self._hints.on_cancel
        self.on_end = self._hints.on_end
        self.on_events = self._hints.on_events
        self.on_watch = self._hints.on_watch
        self.watch = self._hints.watch
        self.is_watched = self._hints.is_watched

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

    async def _fetch_of(
        self, task_id: str, statement: str, owner: str | None, *values: int
    ) -> list[asyncpg.Record]:
        if not task_id.isprintable():  # not every text can be sent to PostgreSQL, but every id can
            return []
        return await self._fetch(SQL[statement], task_id, owner, *values)

    async def _fetch(self, statement: str, *values: object) -> list[asyncpg.Record]:
        """The rows of one statement, which is one transaction."""
        return await _answer(self._connections.fetch(statement, *values), ANSWER_SECONDS)

    # --- TaskStore ---------------------------------------------------------------------------

    async def submit(
        self, new_tasks: Sequence[NewTask], limits: SubmitLimits
    ) -> list[SubmitAnswer]:
        """See `TaskStore.submit`."""
        if not new_tasks:
            return []
        answers = await self._submits(_Submit(new_tasks, limits))
        self._hints.tell_work()
        return answers

    async def get(self, task_id: str, owner: str | None) -> Task | None:
        """See `TaskStore.get`."""
        rows = await self._fetch_of(task_id, "get_task", owner)
        return task_of(rows[0]) if rows else None

    async def payload(self, task_id: str, owner: str | None) -> Payload | None:
        """See `TaskStore.payload`."""
        rows = await self._fetch_of(task_id, "get_payload", owner)
        return Payload(rows[0]["input"], rows[0]["options"]) if rows else None

    async def find(self, query: TaskQuery) -> Page:
        """See `TaskStore.find`."""
        statement = SQL["find_newest_first" if query.newest_first else "find_oldest_first"]
        return page_of(await self._fetch(statement, *asked(query)), query)

    async def queue_position(self, task: Task) -> int | None:
        """See `TaskStore.queue_position`."""
        rows = await self._fetch(SQL["queue_position"], task.id, LONGEST_POSITION - 1)
        return min(LONGEST_POSITION, 1 + rows[0]["earlier"]) if rows else None

    async def request_cancel(self, task_id: str, owner: str | None) -> Task | None:
        """See `TaskStore.request_cancel`."""
        rows = await self._fetch_of(task_id, "request_cancel", owner)
        if not rows:
            return await self.get(task_id, owner)
        task = task_of(rows[0])
        if task.done:
            self._hints.tell_end([task_id])
        else:
            self._hints.tell_cancel()
        return task

    async def delete(self, task_id: str, owner: str | None) -> bool:
        """See `TaskStore.delete`."""
        rows = await self._fetch_of(task_id, "delete_task", owner)
        if not rows:
            return False
        self._hints.tell_end([task_id])
        if rows[0]["status"] == TaskStatus.RUNNING:
            self._hints.tell_cancel()
        return True

    async def log(self, task_id: str, owner: str | None, after: int, limit: int) -> LogPage | None:
        """See `TaskStore.log`."""
        rows = await self._fetch_of(task_id, "read_log", owner, after, limit + 1)
        return log_page_of(rows[0], limit) if rows else None

    async def standings(self, task_ids: Collection[str]) -> Mapping[str, Standing]:
        """See `TaskStore.standings`."""
        rows = await self._fetch(SQL["find_standings"], list(task_ids))
        return {
            row["id"]: Standing(TaskStatus(row["status"]), row["attempt"], row["recorded"])
            for row in rows
        }

    async def queue(self, owner: str | None) -> QueueView:
        """See `TaskStore.queue`."""
        lines = await self._fetch(SQL["view_queue"], owner)
        workers = await self._fetch(SQL["view_workers"])
        usage = await self._fetch(SQL["view_usage"], owner)
        return queue_view_of(lines, workers, usage)

    async def backlog_seconds(self) -> float:
        """See `TaskStore.backlog_seconds`."""
        [row] = await self._fetch(SQL["backlog"])
        return float(row["age"]) / 1_000_000

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
        self._hints.tell_events(row["id"] for row in rows)
        return [claim_of(row) for row in rows]

    async def renew(self, fences: Collection[Fence], lease_seconds: float) -> set[Fence]:
        """See `TaskQueue.renew`. It gives up early enough to be tried again within the lease."""
        renewing = self._renewals.fetch(
            SQL["renew_leases"],
            *columns_of(fences),
            microseconds(lease_seconds),
        )
        held = await _answer(renewing, min(ANSWER_SECONDS, max(1.0, lease_seconds / 3)))
        return {Fence(row["id"], row["attempt"]) for row in held}

    async def settle(self, outcomes: Sequence[Outcome]) -> list[TaskStatus | None]:
        """See `TaskQueue.settle`."""
        if not outcomes:
            return []
        statuses = await self._settles(outcomes)
        self._hints.tell_moves(outcomes, statuses)
        return statuses

    async def append(self, entries: Sequence[Entry]) -> list[bool]:
        """See `TaskQueue.append`."""
        if not entries:
            return []
        rows = await self._fetch(SQL["append_events"], *appended(entries))
        held = {Fence(row["id"], row["attempt"]) for row in rows}
        self._hints.tell_events(fence.task_id for fence in held)
        return [entry.fence in held for entry in entries]

    async def interruptions(self, fences: Collection[Fence]) -> Mapping[Fence, Interruption]:
        """See `TaskQueue.interruptions`."""
        rows = await self._fetch(SQL["find_interruptions"], *columns_of(fences))
        return {
            Fence(row["id"], row["attempt"]): (
                Interruption.CANCEL if row["is_cancel"] else Interruption.LOST
            )
            for row in rows
        }

    async def reclaim(self, max_crashes: int, limit: int) -> list[Reclaimed]:
        """See `TaskQueue.reclaim`."""
        error = json_text(worker_lost(max_crashes))
        rows = await self._fetch(SQL["reclaim_tasks"], max_crashes, limit, error, WORKER_LOST)
        reclaimed = [
            Reclaimed(Fence(row["id"], row["attempt"]), TaskStatus(row["status"])) for row in rows
        ]
        self._hints.tell_moves(reclaimed, [one.status for one in reclaimed])
        return reclaimed

    async def expire(self, limit: int) -> int:
        """See `TaskQueue.expire`."""
        rows = await self._fetch(SQL["expire_tasks"], limit, json_text(DEADLINE_EXCEEDED))
        if rows:
            self._hints.tell_end([row["id"] for row in rows])
        return len(rows)

    async def announce(self, worker: str, executors: Collection[str], seconds: float) -> None:
        """See `TaskQueue.announce`."""
        until = microseconds(seconds)
        await self._fetch(SQL["announce_worker"], worker, list(executors), until)

    async def reroute(self, executors: Collection[str], routes: Routes) -> int:
        """See `TaskQueue.reroute`."""
        models, chosen = list(routes.by_model), list(routes.by_model.values())
        moved = await self._fetch(
            SQL["reroute_tasks"], list(executors), models, chosen, routes.fallback
        )
        if moved:
            self._hints.tell_work()
        return len(moved)

    # --- shared statements -------------------------------------------------------------------

    async def _submit_together(self, submits: Sequence[_Submit]) -> list[list[SubmitAnswer]]:
        """Answer these calls; those with the same limits (all, in a service) share a statement."""
        answers: list[list[SubmitAnswer]] = []
        for limits, same in groupby(submits, key=lambda submit: submit.limits):
            calls = [submit.new_tasks for submit in same]
            rows = iter(await self._submit_all([new for call in calls for new in call], limits))
            answers += [list(islice(rows, len(call))) for call in calls]
        return answers

    async def _submit_all(
        self, new_tasks: Sequence[NewTask], limits: SubmitLimits
    ) -> list[SubmitAnswer]:
        answers: dict[str, SubmitAnswer] = {}
        unclear = new_tasks
        for _ in range(_TRIES):
            answers |= await self._submit_once(unclear, limits)
            unclear = [new for new in unclear if new.id not in answers]
            answers |= await self._repeated(unclear) if unclear else {}
            unclear = [new for new in unclear if new.id not in answers]
            if not unclear:
                return [answers[new.id] for new in new_tasks]
        raise StoreUnavailable("others hold on to the same idempotency keys")

    async def _submit_once(
        self, new_tasks: Sequence[NewTask], limits: SubmitLimits
    ) -> dict[str, SubmitAnswer]:
        """Answers by the ids of the tasks; none for those whose idempotency key is in use."""
        arriving = len(new_tasks)
        if self._room.is_short(limits.retention, arriving, self._clock.monotonic()):
            await self._purge(limits.retention, PURGED_PER_SUBMIT, arriving)
        rows = await self._fetch(
            SQL["submit_tasks"], *submitted(new_tasks), limits.max_pending, _KEY_KEPT
        )
        self._room.total = rows[-1]["total"]
        answers: dict[str, SubmitAnswer] = {}
        for new, row in zip(new_tasks, rows, strict=True):
            if row["created_at"] is not None:
                answers[new.id] = Accepted(new.accepted(row["created_at"]))
            elif not row["is_repeated"]:
                answers[new.id] = QueueFull(row["pending"])
        return answers

    async def _repeated(self, new_tasks: Sequence[NewTask]) -> dict[str, SubmitAnswer]:
        """Answers by the ids of the tasks; none for those whose key is free (again)."""
        keys = [(new.owner, new.idempotency.key) for new in new_tasks if new.idempotency]
        owners, names = [owner for owner, _ in keys], [name for _, name in keys]
        rows = await self._fetch(SQL["find_submitted"], owners, names, _KEY_KEPT)
        earlier = {(row["owner"], row["idempotency_key"]): row for row in rows}
        return {
            new.id: _repeated(new, earlier[key])
            for new, key in zip(new_tasks, keys, strict=True)
            if key in earlier
        }

    async def _settle_together(
        self, calls: Sequence[Sequence[Outcome]]
    ) -> list[list[TaskStatus | None]]:
        """Settle these in one statement; of several for one attempt, the first one counts."""
        first: dict[Fence, Outcome] = {}
        counting = [
            [first.setdefault(outcome.fence, outcome) is outcome for outcome in call]
            for call in calls
        ]
        rows = await self._fetch(SQL["settle_attempts"], *settled(list(first.values())))
        statuses = {Fence(row["id"], row["attempt"]): TaskStatus(row["status"]) for row in rows}
        return [
            [
                statuses.get(outcome.fence) if counts else None
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


def _repeated(new: NewTask, earlier: Mapping[str, Any]) -> Replayed | Mismatch:
    asked = new.idempotency and new.idempotency.fingerprint
    return Replayed(task_of(earlier)) if earlier["fingerprint"] == asked else Mismatch()


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
