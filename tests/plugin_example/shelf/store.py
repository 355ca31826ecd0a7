"""A store that keeps its tasks in a dict, and forgets them with the process.

It goes through all tasks on every call, so it is for a few thousand at most. Each method is one
step because nothing in it awaits, and what becomes of a task is left to the moves of `Task`.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from types import TracebackType
from typing import ClassVar, Self

from msgspec import Struct

from domain.inference import Routes
from domain.instants import after
from domain.ports import (
    PURGED_PER_SUBMIT,
    Accepted,
    Claim,
    Clock,
    Completed,
    Failed,
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
from domain.task import NewTask, Task, TaskStatus


class ShelfOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing can be chosen."""


class ShelfTaskStore:
    """The three ports of a store: for clients, for workers, and hints."""

    options_type: ClassVar[type[Struct]] = ShelfOptions
    is_shared: ClassVar[bool] = False

    def __init__(self, _options: ShelfOptions, clock: Clock) -> None:
        self._clock = clock
        self._tasks: dict[str, Task] = {}  # in the order of acceptance
        self._payloads: dict[str, tuple[bytes, bytes]] = {}  # input and options
        self._leases: dict[str, float] = {}  # of running tasks, by the monotonic clock
        self._listeners: list[Callable[[], None]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    # --- for clients -------------------------------------------------------------------------

    async def submit(
        self, new_tasks: Sequence[NewTask], limits: SubmitLimits
    ) -> list[Accepted | QueueFull]:
        self._remove_finished(limits.retention, len(new_tasks), PURGED_PER_SUBMIT)
        return [self._add(new, limits.max_pending) for new in new_tasks]

    async def get(self, task_id: str, owner: str) -> Task | None:
        task = self._tasks.get(task_id)
        return task if task is not None and task.owner == owner else None

    async def counts(self) -> TaskCounts:
        return TaskCounts(**Counter(task.status.value for task in self._tasks.values()))

    async def purge(self, retention: RetentionPolicy, limit: int) -> int:
        return self._remove_finished(retention, 0, limit)

    async def check(self) -> None:
        return None

    # --- for workers -------------------------------------------------------------------------

    async def claim(
        self, worker: str, room: Mapping[str, int], lease_seconds: float
    ) -> list[Claim]:
        now = self._clock.now()
        due = [task for task in self._with_status(TaskStatus.PENDING) if task.rank <= now]
        due.sort(key=lambda task: task.rank)
        chosen = [
            task
            for executor, free in room.items()
            for task in [task for task in due if task.executor == executor][:free]
        ]
        return [self._start(task, now, lease_seconds) for task in chosen]

    async def renew(self, fences: Collection[Fence], lease_seconds: float) -> set[Fence]:
        held = {fence for fence in fences if self._running(fence)}
        until = self._clock.monotonic() + lease_seconds
        self._leases.update({fence.task_id: until for fence in held})
        return held

    async def settle(self, outcomes: Sequence[Outcome]) -> list[bool]:
        return [self._settle(outcome) for outcome in outcomes]

    async def reclaim(self, max_crashes: int, limit: int) -> list[Reclaimed]:
        monotonic = self._clock.monotonic()
        expired = [task_id for task_id, until in self._leases.items() if until < monotonic]
        return [self._take_away(self._tasks[task_id], max_crashes) for task_id in expired[:limit]]

    async def reroute(self, executors: Collection[str], routes: Routes) -> int:
        pending = self._with_status(TaskStatus.PENDING)
        stranded = [task for task in pending if task.executor not in executors]
        for task in stranded:
            self._put(task.routed(routes.executor_for(task.model)))
        return len(stranded)

    # --- hints -------------------------------------------------------------------------------

    def on_work(self, listener: Callable[[], None]) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    # --- steps -------------------------------------------------------------------------------

    def _with_status(self, status: TaskStatus) -> list[Task]:
        return [task for task in self._tasks.values() if task.status is status]

    def _put(self, task: Task) -> None:
        self._tasks[task.id] = task
        if task.status is not TaskStatus.RUNNING:
            self._leases.pop(task.id, None)
        if task.status is TaskStatus.PENDING:
            for listener in self._listeners:
                listener()

    def _add(self, new: NewTask, max_pending: int) -> Accepted | QueueFull:
        pending = len(self._with_status(TaskStatus.PENDING))
        if pending >= max_pending:
            return QueueFull(pending)
        self._payloads[new.id] = (new.input, new.options)
        self._put(new.accepted(self._clock.now()))
        return Accepted(self._tasks[new.id])

    def _start(self, task: Task, now: int, lease_seconds: float) -> Claim:
        self._put(task.claimed(now))
        self._leases[task.id] = self._clock.monotonic() + lease_seconds
        return Claim(self._tasks[task.id], *self._payloads[task.id])

    def _running(self, fence: Fence) -> Task | None:
        """The task, if this attempt may still write to it."""
        task = self._tasks.get(fence.task_id)
        if task is None or task.status is not TaskStatus.RUNNING:
            return None
        return task if task.attempt == fence.attempt else None

    def _settle(self, outcome: Outcome) -> bool:
        task = self._running(outcome.fence)
        if task is None:
            return False
        now = self._clock.now()
        match outcome:
            case Completed():
                self._put(task.completed(now, outcome.result, outcome.usage))
            case Failed():
                self._put(task.failed(now, outcome.error))
            case Retry():
                self._put(task.retried(after(now, outcome.seconds)))
            case HandedBack():
                self._put(task.handed_back())
        return True

    def _take_away(self, task: Task, max_crashes: int) -> Reclaimed:
        lost = task.worker_vanished(self._clock.now(), max_crashes)
        self._put(lost)
        return Reclaimed(Fence(task.id, task.attempt), lost.status)

    def _remove_finished(self, retention: RetentionPolicy, arriving: int, limit: int) -> int:
        cut_off = retention.finished_before(self._clock.now()) or 0
        finished = [task for task in self._tasks.values() if task.completed_at is not None]
        expired = [task for task in finished if (task.completed_at or 0) < cut_off][:limit]
        excess = retention.excess(len(self._tasks) - len(expired), arriving)
        kept = [task for task in finished if task not in expired]
        kept.sort(key=lambda task: task.created_at)
        going = expired + kept[: min(excess, limit - len(expired))]
        for task in going:
            del self._tasks[task.id], self._payloads[task.id]
        return len(going)
