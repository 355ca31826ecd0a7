"""A store around another one, which times its calls and counts what they tell. No adapter does."""

from collections import defaultdict
from collections.abc import Awaitable, Collection, Iterator, Mapping, Sequence
from time import perf_counter
from typing import TypeVar

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from domain.errors import StoreUnavailable
from domain.events import LogPage
from domain.inference import Routes
from domain.ports import (
    Claim,
    Entry,
    Fence,
    Interruption,
    Outcome,
    Payload,
    QueueView,
    Reclaimed,
    Standing,
    Store,
    SubmitAnswer,
    SubmitLimits,
    TaskCounts,
)
from domain.query import Page, TaskQuery
from domain.retention import RetentionPolicy
from domain.task import NewTask, Task, TaskStatus
from entrypoints.metrics.attempts import Attempts
from entrypoints.metrics.tallies import Tally, Timing, histogram

T = TypeVar("T")


class MeasuredStore(Collector):
    """All three ports; each call is passed on as it is, and what it raises comes back as it is."""

    def __init__(self, store: Store, registry: CollectorRegistry) -> None:
        self._store = store
        self._attempts = Attempts(registry)
        self._timings: defaultdict[str, Timing] = defaultdict(Timing)
        self._failures = Tally(
            "task_agent_store_failures",
            "Calls that the store did not answer.",
            registry,
            ["method"],
        )
        registry.register(self)
        self.on_work = store.on_work
        self.on_cancel = store.on_cancel
        self.on_end = store.on_end
        self.on_events = store.on_events
        self.on_watch = store.on_watch
        self.watch = store.watch
        self.is_watched = store.is_watched

    async def _timed(self, method: str, call: Awaitable[T]) -> T:
        started = perf_counter()
        try:
            return await call
        except StoreUnavailable:
            self._failures.add(method)
            raise
        finally:
            self._timings[method].add(perf_counter() - started)

    def collect(self) -> Iterator[Metric]:
        """See `Collector.collect`."""
        yield histogram(
            "task_agent_store_seconds",
            "How long calls to the store took, by method of the port.",
            ["method"],
            {(method,): timing for method, timing in self._timings.items()},
        )

    # --- TaskStore ---------------------------------------------------------------------------

    async def submit(
        self, new_tasks: Sequence[NewTask], limits: SubmitLimits
    ) -> list[SubmitAnswer]:
        """See `TaskStore.submit`."""
        return await self._timed("submit", self._store.submit(new_tasks, limits))

    async def get(self, task_id: str, owner: str | None) -> Task | None:
        """See `TaskStore.get`."""
        return await self._timed("get", self._store.get(task_id, owner))

    async def payload(self, task_id: str, owner: str | None) -> Payload | None:
        """See `TaskStore.payload`."""
        return await self._timed("payload", self._store.payload(task_id, owner))

    async def find(self, query: TaskQuery) -> Page:
        """See `TaskStore.find`."""
        return await self._timed("find", self._store.find(query))

    async def queue_position(self, task: Task) -> int | None:
        """See `TaskStore.queue_position`."""
        return await self._timed("queue_position", self._store.queue_position(task))

    async def request_cancel(self, task_id: str, owner: str | None) -> Task | None:
        """See `TaskStore.request_cancel`."""
        return await self._timed("request_cancel", self._store.request_cancel(task_id, owner))

    async def delete(self, task_id: str, owner: str | None) -> bool:
        """See `TaskStore.delete`."""
        return await self._timed("delete", self._store.delete(task_id, owner))

    async def log(self, task_id: str, owner: str | None, after: int, limit: int) -> LogPage | None:
        """See `TaskStore.log`."""
        return await self._timed("log", self._store.log(task_id, owner, after, limit))

    async def standings(self, task_ids: Collection[str]) -> Mapping[str, Standing]:
        """See `TaskStore.standings`."""
        return await self._timed("standings", self._store.standings(task_ids))

    async def queue(self, owner: str | None) -> QueueView:
        """See `TaskStore.queue`."""
        return await self._timed("queue", self._store.queue(owner))

    async def backlog_seconds(self) -> float:
        """See `TaskStore.backlog_seconds`."""
        return await self._timed("backlog_seconds", self._store.backlog_seconds())

    async def counts(self) -> TaskCounts:
        """See `TaskStore.counts`."""
        return await self._timed("counts", self._store.counts())

    async def purge(self, retention: RetentionPolicy, limit: int) -> int:
        """See `TaskStore.purge`."""
        return await self._timed("purge", self._store.purge(retention, limit))

    async def check(self) -> None:
        """See `TaskStore.check`."""
        await self._timed("check", self._store.check())

    # --- TaskQueue ---------------------------------------------------------------------------

    async def claim(
        self, worker: str, room: Mapping[str, int], lease_seconds: float
    ) -> list[Claim]:
        """See `TaskQueue.claim`."""
        claims = await self._timed("claim", self._store.claim(worker, room, lease_seconds))
        self._attempts.begin(claims)
        return claims

    async def renew(self, fences: Collection[Fence], lease_seconds: float) -> set[Fence]:
        """See `TaskQueue.renew`. What is not renewed here is lost, whether it was asked for or not.

        A worker asks for all that it runs, but for what it stopped when the lease was not sure.
        """
        running = self._attempts.running()
        renewed = await self._timed("renew", self._store.renew(fences, lease_seconds))
        self._attempts.lose(running - renewed)
        return renewed

    async def settle(self, outcomes: Sequence[Outcome]) -> list[TaskStatus | None]:
        """See `TaskQueue.settle`."""
        executors = self._attempts.leave(outcomes)
        try:
            statuses = await self._timed("settle", self._store.settle(outcomes))
        except Exception:
            self._attempts.resume(executors)
            raise
        self._attempts.end(outcomes, statuses, executors)
        return statuses

    async def append(self, entries: Sequence[Entry]) -> list[bool]:
        """See `TaskQueue.append`."""
        appended = await self._timed("append", self._store.append(entries))
        self._attempts.refuse(appended.count(False))
        return appended

    async def interruptions(self, fences: Collection[Fence]) -> Mapping[Fence, Interruption]:
        """See `TaskQueue.interruptions`."""
        found = await self._timed("interruptions", self._store.interruptions(fences))
        self._attempts.lose([fence for fence in found if found[fence] is Interruption.LOST])
        return found

    async def reclaim(self, max_crashes: int, limit: int) -> list[Reclaimed]:
        """See `TaskQueue.reclaim`."""
        reclaimed = await self._timed("reclaim", self._store.reclaim(max_crashes, limit))
        self._attempts.reclaim(len(reclaimed))
        return reclaimed

    async def expire(self, limit: int) -> int:
        """See `TaskQueue.expire`."""
        return await self._timed("expire", self._store.expire(limit))

    async def announce(self, worker: str, executors: Collection[str], seconds: float) -> None:
        """See `TaskQueue.announce`."""
        await self._timed("announce", self._store.announce(worker, executors, seconds))

    async def reroute(self, executors: Collection[str], routes: Routes) -> int:
        """See `TaskQueue.reroute`."""
        return await self._timed("reroute", self._store.reroute(executors, routes))
