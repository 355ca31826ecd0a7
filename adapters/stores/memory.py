"""The store that forgets: for tests and throw-away runs, and the reference for the others.

Everything lives in dicts and heaps of one process, and a step is atomic because nothing in it
awaits. Pending tasks wait in turn, for each executor apart; finished ones in two heaps, by the
orders in which retention removes them. A heap entry whose task is gone is skipped when it comes up,
and thrown out with its like once they outnumber the rest.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
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

_STALE_ENTRIES_BORNE = 1_000


class MemoryOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing can be chosen."""


class _Row(Struct, gc=False):
    """A task and what never changes about it. `number` is the order of acceptance."""

    task: Task
    number: int
    input: bytes
    options: bytes


class _Turn(Struct, frozen=True, order=True, gc=False):
    """A pending task's place in the order of claims: its rank, then its acceptance."""

    rank: int
    number: int
    row: _Row


class _Finished(Struct, frozen=True, order=True, gc=False):
    """A finished task's place in an order of removal. It keeps no payload alive, only an id."""

    instant: int
    number: int
    task_id: str


class _Lease(Struct, frozen=True, gc=False):
    """Who holds a task, and until when (monotonic seconds)."""

    worker: str
    until: float


class _Turns:
    """The pending tasks of one executor, in the order of claims.

    Most come in that order, and wait in a plain queue, however long it grows. Those that come back
    (retried, handed back) have a turn of their own, and wait in a heap.
    """

    def __init__(self) -> None:
        self._arrived: deque[_Turn] = deque()
        self._returned: list[_Turn] = []

    def arrive(self, turn: _Turn) -> None:
        """A task that was just accepted."""
        if self._arrived and turn < self._arrived[-1]:  # the wall clock was set back
            self.come_back(turn)
        else:
            self._arrived.append(turn)

    def come_back(self, turn: _Turn) -> None:
        """A task that was here before."""
        heappush(self._returned, turn)

    def take_due(self, now: int) -> _Turn | None:
        """The first one, if it is due."""
        arrived, returned = self._arrived, self._returned
        if returned and (not arrived or returned[0] < arrived[0]):
            return heappop(returned) if returned[0].rank <= now else None
        return arrived.popleft() if arrived and arrived[0].rank <= now else None

    def __iter__(self) -> Iterator[_Turn]:
        """All of them, in no order."""
        yield from self._arrived
        yield from self._returned


class MemoryTaskStore:
    """All three ports of a store, in the memory of one process."""

    options_type: ClassVar[type[Struct]] = MemoryOptions
    is_shared: ClassVar[bool] = False

    def __init__(self, _options: MemoryOptions, clock: Clock) -> None:
        self._clock = clock
        self._rows: dict[str, _Row] = {}
        self._accepted = 0
        self._count = dict.fromkeys(TaskStatus, 0)
        self._pending: defaultdict[str, _Turns] = defaultdict(_Turns)
        self._leases: dict[str, _Lease] = {}
        self._by_completion: list[_Finished] = []
        self._by_creation: list[_Finished] = []
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

    # --- TaskStore ---------------------------------------------------------------------------

    async def submit(
        self, new_tasks: Sequence[NewTask], limits: SubmitLimits
    ) -> list[Accepted | QueueFull]:
        """See `TaskStore.submit`."""
        self._make_room(limits.retention, len(new_tasks), PURGED_PER_SUBMIT)
        now = self._clock.now()
        answers = [self._add(new, now, limits.max_pending) for new in new_tasks]
        self._hint()
        return answers

    async def get(self, task_id: str, owner: str) -> Task | None:
        """See `TaskStore.get`."""
        row = self._rows.get(task_id)
        return row.task if row is not None and row.task.owner == owner else None

    async def counts(self) -> TaskCounts:
        """See `TaskStore.counts`."""
        return TaskCounts(**{status.value: number for status, number in self._count.items()})

    async def purge(self, retention: RetentionPolicy, limit: int) -> int:
        """See `TaskStore.purge`."""
        return self._make_room(retention, 0, limit)

    async def check(self) -> None:
        """See `TaskStore.check`: memory always takes another task."""

    # --- TaskQueue ---------------------------------------------------------------------------

    async def claim(
        self, worker: str, room: Mapping[str, int], lease_seconds: float
    ) -> list[Claim]:
        """See `TaskQueue.claim`."""
        now = self._clock.now()
        lease = _Lease(worker, self._clock.monotonic() + lease_seconds)
        return [
            self._claim(row, now, lease)
            for executor, free in room.items()
            for row in self._take_due(executor, free, now)
        ]

    async def renew(self, fences: Collection[Fence], lease_seconds: float) -> set[Fence]:
        """See `TaskQueue.renew`."""
        until = self._clock.monotonic() + lease_seconds
        held = {fence for fence in fences if self._running(fence) is not None}
        for fence in held:
            worker = self._leases[fence.task_id].worker
            self._leases[fence.task_id] = _Lease(worker, until)
        return held

    async def settle(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """See `TaskQueue.settle`."""
        now = self._clock.now()
        written = [self._settle(outcome, now) for outcome in outcomes]
        if any(isinstance(outcome, Retry | HandedBack) for outcome in outcomes):
            self._hint()
        return written

    async def reclaim(self, max_crashes: int, limit: int) -> list[Reclaimed]:
        """See `TaskQueue.reclaim`."""
        now, monotonic = self._clock.now(), self._clock.monotonic()
        expired = [task_id for task_id, lease in self._leases.items() if lease.until < monotonic]
        reclaimed = [self._reclaim(task_id, now, max_crashes) for task_id in expired[:limit]]
        if reclaimed:
            self._hint()
        return reclaimed

    async def reroute(self, executors: Collection[str], routes: Routes) -> int:
        """See `TaskQueue.reroute`."""
        waiting = [self._pending.pop(name) for name in self._pending.keys() - set(executors)]
        moved = [turn.row for turns in waiting for turn in turns]
        for row in moved:
            self._enqueue(row, row.task.routed(routes.executor_for(row.task.model)))
        if moved:
            self._hint()
        return len(moved)

    # --- TaskFeed ----------------------------------------------------------------------------

    def on_work(self, listener: Callable[[], None]) -> Callable[[], None]:
        """See `TaskFeed.on_work`."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _hint(self) -> None:
        for listener in self._listeners:
            listener()

    # --- steps -------------------------------------------------------------------------------

    def _add(self, new: NewTask, now: int, max_pending: int) -> Accepted | QueueFull:
        pending = self._count[TaskStatus.PENDING]
        if pending >= max_pending:
            return QueueFull(pending)
        self._accepted += 1
        row = _Row(new.accepted(now), self._accepted, new.input, new.options)
        self._rows[new.id] = row
        self._count[TaskStatus.PENDING] += 1
        self._pending[row.task.executor].arrive(_Turn(now, row.number, row))
        return Accepted(row.task)

    def _take_due(self, executor: str, free: int, now: int) -> Iterator[_Row]:
        waiting = self._pending[executor]
        for _ in range(free):
            turn = waiting.take_due(now)
            if turn is None:
                return
            yield turn.row

    def _claim(self, row: _Row, now: int, lease: _Lease) -> Claim:
        self._leases[row.task.id] = lease
        self._move(row, row.task.claimed(now))
        return Claim(row.task, row.input, row.options)

    def _running(self, fence: Fence) -> _Row | None:
        """The row that this attempt may still write to."""
        row = self._rows.get(fence.task_id)
        if row is None or row.task.status is not TaskStatus.RUNNING:
            return None
        return row if row.task.attempt == fence.attempt else None

    def _settle(self, outcome: Outcome, now: int) -> bool:
        row = self._running(outcome.fence)
        if row is None:
            return False
        del self._leases[row.task.id]
        match outcome:
            case Completed():
                self._finish(row, row.task.completed(now, outcome.result, outcome.usage))
            case Failed():
                self._finish(row, row.task.failed(now, outcome.error))
            case Retry():
                self._enqueue(row, row.task.retried(after(now, outcome.seconds)))
            case HandedBack():
                self._enqueue(row, row.task.handed_back())
        return True

    def _reclaim(self, task_id: str, now: int, max_crashes: int) -> Reclaimed:
        del self._leases[task_id]
        row = self._rows[task_id]
        fence = Fence(task_id, row.task.attempt)
        task = row.task.worker_vanished(now, max_crashes)
        if task.done:
            self._finish(row, task)
        else:
            self._enqueue(row, task)
        return Reclaimed(fence, task.status)

    def _move(self, row: _Row, task: Task) -> None:
        self._count[row.task.status] -= 1
        self._count[task.status] += 1
        row.task = task

    def _enqueue(self, row: _Row, task: Task) -> None:
        self._move(row, task)
        self._pending[task.executor].come_back(_Turn(task.rank, row.number, row))

    def _finish(self, row: _Row, task: Task) -> None:
        self._move(row, task)
        heappush(self._by_completion, _Finished(task.completed_at or 0, row.number, task.id))
        heappush(self._by_creation, _Finished(task.created_at, row.number, task.id))

    # --- retention ---------------------------------------------------------------------------

    def _make_room(self, retention: RetentionPolicy, arriving: int, limit: int) -> int:
        removed = 0
        expired = retention.finished_before(self._clock.now())
        while removed < limit and expired is not None and self._oldest_completion() < expired:
            self._remove(self._by_completion[0].task_id)
            removed += 1
        excess = retention.excess(len(self._rows), arriving)
        for task_id in self._oldest_by_creation(min(excess, limit - removed)):
            self._remove(task_id)
            removed += 1
        return removed

    def _oldest_completion(self) -> float:
        self._drop_stale(self._by_completion)
        return self._by_completion[0].instant if self._by_completion else float("inf")

    def _oldest_by_creation(self, limit: int) -> Iterator[str]:
        for _ in range(limit):
            self._drop_stale(self._by_creation)
            if not self._by_creation:
                return
            yield self._by_creation[0].task_id

    def _remove(self, task_id: str) -> None:
        self._count[self._rows.pop(task_id).task.status] -= 1

    def _drop_stale(self, heap: list[_Finished]) -> None:
        while heap and heap[0].task_id not in self._rows:
            heappop(heap)
        if len(heap) > 2 * len(self._rows) + _STALE_ENTRIES_BORNE:
            heap[:] = [entry for entry in heap if entry.task_id in self._rows]
            heapify(heap)
