"""The ports, carried to the two threads."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, closing
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Literal, Self

from msgspec import Struct

from adapters.stores.sqlite.batches import BatchThread
from adapters.stores.sqlite.disk import DiskFloor, DiskUsage, disk_usage
from adapters.stores.sqlite.opening import connect, make_ready, owned, refusing
from adapters.stores.sqlite.tables import Tables, get
from adapters.stores.sqlite.transactions import GroupCommit, read_together
from domain.errors import StorageFull
from domain.inference import Routes
from domain.ports import (
    Accepted,
    Claim,
    Clock,
    Fence,
    HandedBack,
    Outcome,
    QueueFull,
    Reclaimed,
    Retry,
    SubmitLimits,
    TaskCounts,
)
from domain.retention import RetentionPolicy
from domain.task import NewTask, Task

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


class SqliteTaskStore:
    """All three ports of a store, in one SQLite file which this process alone has open."""

    options_type: ClassVar[type[Struct]] = SqliteOptions
    is_shared: ClassVar[bool] = False

    def __init__(
        self,
        options: SqliteOptions,
        clock: Clock,
        disk_usage: Callable[[Path], DiskUsage] = disk_usage,
    ) -> None:
        self._options = options
        self._path = Path(options.path).resolve()
        self._clock = clock
        self._disk_usage = disk_usage
        self._listeners: list[Callable[[], None]] = []
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
    ) -> list[Accepted | QueueFull]:
        """See `TaskStore.submit`."""
        answers = await self._writer.call(partial(self._tables.submit, new_tasks, limits))
        if isinstance(answers, StorageFull):
            raise answers
        self._hint()
        return answers

    async def get(self, task_id: str, owner: str) -> Task | None:
        """See `TaskStore.get`."""
        return await self._reader.call(partial(get, self._reading, task_id, owner))

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
        claim = partial(self._tables.claim, worker, room, lease_seconds)
        return await self._writer.call(claim, durable=False)

    async def renew(self, fences: Collection[Fence], lease_seconds: float) -> set[Fence]:
        """See `TaskQueue.renew`."""
        renew = partial(self._tables.renew, fences, lease_seconds)
        return await self._writer.call(renew, durable=False)

    async def settle(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """See `TaskQueue.settle`."""
        written = await self._writer.call(partial(self._tables.settle, outcomes))
        if any(isinstance(outcome, Retry | HandedBack) for outcome in outcomes):
            self._hint()
        return written

    async def reclaim(self, max_crashes: int, limit: int) -> list[Reclaimed]:
        """See `TaskQueue.reclaim`."""
        reclaimed = await self._writer.call(partial(self._tables.reclaim, max_crashes, limit))
        if reclaimed:
            self._hint()
        return reclaimed

    async def reroute(self, executors: Collection[str], routes: Routes) -> int:
        """See `TaskQueue.reroute`."""
        moved = await self._writer.call(partial(self._tables.reroute, executors, routes))
        if moved:
            self._hint()
        return moved

    # --- TaskFeed ----------------------------------------------------------------------------

    def on_work(self, listener: Callable[[], None]) -> Callable[[], None]:
        """See `TaskFeed.on_work`."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _hint(self) -> None:
        for listener in self._listeners:
            listener()
