"""The ports, carried to the two threads."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, closing
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Literal, Self

from msgspec import Struct

from adapters.feed import LocalFeed
from adapters.presence import Presence
from adapters.stores.sqlite import reads
from adapters.stores.sqlite.batches import BatchThread
from adapters.stores.sqlite.disk import DiskFloor, DiskUsage, disk_usage
from adapters.stores.sqlite.opening import connect, make_ready, owned, refusing
from adapters.stores.sqlite.tables import Tables
from adapters.stores.sqlite.transactions import GroupCommit, read_together
from domain.errors import StorageFull
from domain.events import LogPage
from domain.inference import Routes
from domain.ports import (
    Claim,
    Clock,
    Entry,
    Fence,
    Interruption,
    Outcome,
    Payload,
    QueueView,
    Reclaimed,
    Standing,
    SubmitAnswer,
    SubmitLimits,
    TaskCounts,
)
from domain.query import Page, TaskQuery
from domain.retention import RetentionPolicy
from domain.task import NewTask, Task, TaskStatus

_LARGEST_IDLE_LOG_BYTES: Final = 64 * 1024 * 1024


class SqliteOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the file is, and what it promises.

    `durability`: `full` survives a power cut, `normal` a killed process. `min_free_bytes` is the
    room on the disk below which no task is taken; None: 64 MiB, or a tenth of the file system
    where that is less. `migrate_on_start` False: a file of an older schema is refused.
    """

    path: str
    durability: Literal["full", "normal"] = "full"
    min_free_bytes: int | None = None
    migrate_on_start: bool = True


class SqliteTaskStore(LocalFeed):
    """All three ports of a store, in one SQLite file which this process alone has open."""

    options_type: ClassVar[type[Struct]] = SqliteOptions
    is_shared: ClassVar[bool] = False

    def __init__(
        self,
        options: SqliteOptions,
        clock: Clock,
        disk_usage: Callable[[Path], DiskUsage] = disk_usage,
    ) -> None:
        super().__init__(clock.monotonic)
        self._options = options
        self._path = Path(options.path).resolve()
        self._clock = clock
        self._disk_usage = disk_usage
        self._presence = Presence(clock.monotonic)
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opening:
            opening.enter_context(owned(self._path))
            make_ready(self._path, migrate=self._options.migrate_on_start)
            with refusing(self._path):
                self._start(opening)
            self._opened = opening.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._opened.aclose()

    def _start(self, opening: AsyncExitStack) -> None:
        """Open both connections and start their threads; all of it ends with `opening`."""
        self._writing = opening.enter_context(closing(connect(self._path)))
        self._writing.execute("PRAGMA journal_mode = WAL")
        self._writing.execute(f"PRAGMA journal_size_limit = {_LARGEST_IDLE_LOG_BYTES}")
        floor = DiskFloor(
            self._options.min_free_bytes,
            lambda: self._disk_usage(self._path),
            self._clock.monotonic,
        )
        self._tables = Tables(self._writing, self._clock, floor)
        commit = GroupCommit(self._writing, self._tables, self._options.durability == "full")
        self._reading = opening.enter_context(closing(connect(self._path, "ro")))
        self._writer = BatchThread("sqlite-writer", commit.run)
        opening.push_async_callback(self._writer.close)
        self._reader = BatchThread("sqlite-reader", partial(read_together, self._reading))
        opening.push_async_callback(self._reader.close)

    # --- TaskStore ---------------------------------------------------------------------------

    async def submit(
        self, new_tasks: Sequence[NewTask], limits: SubmitLimits
    ) -> list[SubmitAnswer]:
        """See `TaskStore.submit`."""
        answers = await self._writer.call(partial(self._tables.submit, new_tasks, limits))
        if isinstance(answers, StorageFull):
            raise answers
        self.tell_work()
        return answers

    async def get(self, task_id: str, owner: str | None) -> Task | None:
        """See `TaskStore.get`."""
        return await self._reader.call(partial(reads.get, self._reading, task_id, owner))

    async def payload(self, task_id: str, owner: str | None) -> Payload | None:
        """See `TaskStore.payload`."""
        return await self._reader.call(partial(reads.payload, self._reading, task_id, owner))

    async def find(self, query: TaskQuery) -> Page:
        """See `TaskStore.find`."""
        return await self._reader.call(partial(reads.find, self._reading, query))

    async def queue_position(self, task: Task) -> int | None:
        """See `TaskStore.queue_position`."""
        position = partial(reads.queue_position, self._reading, task.id, self._clock.now())
        return await self._reader.call(position)

    async def request_cancel(self, task_id: str, owner: str | None) -> Task | None:
        """See `TaskStore.request_cancel`."""
        change = await self._writer.call(partial(self._tables.request_cancel, task_id, owner))
        if change is None:
            return None
        before, task = change
        if task.done and not before.done:
            self.tell_end([task_id])
        elif task is not before:
            self.tell_cancel()
        return task

    async def delete(self, task_id: str, owner: str | None) -> bool:
        """See `TaskStore.delete`."""
        deleted = await self._writer.call(partial(self._tables.delete, task_id, owner))
        if deleted is None:
            return False
        if deleted is TaskStatus.RUNNING:
            self.tell_cancel()
        self.tell_end([task_id])
        return True

    async def log(self, task_id: str, owner: str | None, after: int, limit: int) -> LogPage | None:
        """See `TaskStore.log`."""
        read = partial(reads.log, self._reading, task_id, owner, after, limit)
        return await self._reader.call(read)

    async def standings(self, task_ids: Collection[str]) -> Mapping[str, Standing]:
        """See `TaskStore.standings`."""
        return await self._reader.call(partial(reads.standings, self._reading, task_ids))

    async def queue(self, owner: str | None) -> QueueView:
        """See `TaskStore.queue`."""
        look = partial(reads.queue, self._reading, owner, self._clock.now())
        lines, oldest_pending_seconds, usage = await self._reader.call(look)
        return QueueView(lines, oldest_pending_seconds, self._presence.workers(), usage)

    async def backlog_seconds(self) -> float:
        """See `TaskStore.backlog_seconds`."""
        look = partial(reads.backlog_seconds, self._reading, self._clock.now())
        return await self._reader.call(look)

    async def counts(self) -> TaskCounts:
        """See `TaskStore.counts`: those of the latest commit, kept in memory."""
        return self._tables.counts

    async def purge(self, retention: RetentionPolicy, limit: int) -> int:
        """See `TaskStore.purge`."""
        return await self._writer.call(partial(self._tables.purge, retention, limit))

    async def check(self) -> None:
        """See `TaskStore.check`."""
        shortage = await self._writer.call(self._tables.check)
        if shortage is not None:
            raise shortage

    # --- TaskQueue ---------------------------------------------------------------------------

    async def claim(
        self, worker: str, room: Mapping[str, int], lease_seconds: float
    ) -> list[Claim]:
        """See `TaskQueue.claim`."""
        take = partial(self._tables.claim, worker, room, lease_seconds)
        claims = await self._writer.call(take, durable=False)
        self.tell_events(claim.task.id for claim in claims)
        return claims

    async def renew(self, fences: Collection[Fence], lease_seconds: float) -> set[Fence]:
        """See `TaskQueue.renew`."""
        renew = partial(self._tables.renew, fences, lease_seconds)
        return await self._writer.call(renew, durable=False)

    async def settle(self, outcomes: Sequence[Outcome]) -> list[TaskStatus | None]:
        """See `TaskQueue.settle`."""
        written = await self._writer.call(partial(self._tables.settle, outcomes))
        self.tell_moves(outcomes, written)
        return written

    async def append(self, entries: Sequence[Entry]) -> list[bool]:
        """See `TaskQueue.append`."""
        appended = await self._writer.call(partial(self._tables.append, entries))
        self.tell_events(entry.fence.task_id for entry in entries)
        return appended

    async def interruptions(self, fences: Collection[Fence]) -> Mapping[Fence, Interruption]:
        """See `TaskQueue.interruptions`."""
        return await self._reader.call(partial(reads.interruptions, self._reading, fences))

    async def reclaim(self, max_crashes: int, limit: int) -> list[Reclaimed]:
        """See `TaskQueue.reclaim`."""
        reclaimed = await self._writer.call(partial(self._tables.reclaim, max_crashes, limit))
        self.tell_moves(reclaimed, [one.status for one in reclaimed])
        return reclaimed

    async def expire(self, limit: int) -> int:
        """See `TaskQueue.expire`."""
        expired = await self._writer.call(partial(self._tables.expire, limit))
        if expired:
            self.tell_end(expired)
        return len(expired)

    async def announce(self, worker: str, executors: Collection[str], seconds: float) -> None:
        """See `TaskQueue.announce`: kept in memory."""
        self._presence.announce(worker, executors, seconds)

    async def reroute(self, executors: Collection[str], routes: Routes) -> int:
        """See `TaskQueue.reroute`."""
        moved = await self._writer.call(partial(self._tables.reroute, executors, routes))
        if moved:
            self.tell_work()
        return moved
