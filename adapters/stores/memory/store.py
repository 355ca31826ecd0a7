"""The ports, over the memory of one process. A step is atomic because nothing in it awaits."""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from heapq import merge
from itertools import chain
from types import TracebackType
from typing import ClassVar, Self

from msgspec import Struct
from msgspec.structs import replace

from adapters.feed import LocalFeed
from adapters.presence import Presence
from adapters.stores.memory.owners import Owned, place
from adapters.stores.memory.queues import SortedQueue
from adapters.stores.memory.rows import Row, shared
from adapters.stores.memory.turns import Turns
from domain.events import Event, LogPage, Output, lost_until, number_of_recorded, progress_in
from domain.inference import NO_USAGE, Routes, Usage
from domain.instants import after, seconds_between
from domain.ports import (
    KEY_KEPT_SECONDS,
    MOST_USAGE_LINES,
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
    QueueLine,
    QueueView,
    Reclaimed,
    Replayed,
    Standing,
    SubmitAnswer,
    SubmitLimits,
    TaskCounts,
    UsageLine,
    settled,
    summed,
)
from domain.query import ROWS_PER_PAGE, Found, Page, Position, TaskQuery
from domain.retention import RetentionPolicy
from domain.task import NewTask, Task, TaskStatus


class MemoryOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing can be chosen."""


class _Lease(Struct, frozen=True, gc=False):
    """Who holds a task, and until when (monotonic seconds)."""

    worker: str
    until: float


class MemoryTaskStore(LocalFeed):
    """All three ports of a store, in the memory of one process."""

    options_type: ClassVar[type[Struct]] = MemoryOptions
    is_shared: ClassVar[bool] = False

    def __init__(self, _options: MemoryOptions, clock: Clock) -> None:
        super().__init__(clock.monotonic)
        self._clock = clock
        self._rows: dict[str, Row] = {}
        self._accepted = 0
        self._count = dict.fromkeys(TaskStatus, 0)
        self._owned: defaultdict[str, Owned] = defaultdict(Owned)
        self._of_key: dict[tuple[str, str], Row] = {}
        self._turns: defaultdict[str, Turns] = defaultdict(Turns)
        self._deadlines = SortedQueue(lambda row: row.task.deadline or 0, lambda row: row.task.done)
        self._leases: dict[str, _Lease] = {}
        self._recorded: dict[str, list[Event]] = {}
        self._usage: defaultdict[str, dict[tuple[str, str | None], Usage]] = defaultdict(dict)
        self._presence = Presence(clock.monotonic)
        self._by_completion = SortedQueue(lambda row: row.task.completed_at or 0, _is_removed)
        self._by_creation = SortedQueue(lambda row: row.created_at, _is_removed)

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
    ) -> list[SubmitAnswer]:
        """See `TaskStore.submit`."""
        self._make_room(limits.retention, len(new_tasks), PURGED_PER_SUBMIT)
        now = self._clock.now()
        answers = [self._submit(new, now, limits.max_pending) for new in new_tasks]
        self.tell_work()
        return answers

    async def get(self, task_id: str, owner: str | None) -> Task | None:
        """See `TaskStore.get`."""
        row = self._visible(task_id, owner)
        return None if row is None else row.task

    async def payload(self, task_id: str, owner: str | None) -> Payload | None:
        """See `TaskStore.payload`."""
        row = self._visible(task_id, owner)
        return None if row is None else Payload(row.input, row.options)

    async def find(self, query: TaskQuery) -> Page:
        """See `TaskStore.find`."""
        found: list[Found] = []
        last = Position(0, 0)
        for looked_at, row in enumerate(self._walk(query)):
            matches = query.matches(row.task)
            if looked_at == ROWS_PER_PAGE or (matches and len(found) == query.limit):
                return Page(found, last)
            last = Position(row.created_at, row.number)
            if matches:
                found.append(_found(row, query))
        return Page(found, None)

    async def queue_position(self, task: Task) -> int | None:
        """See `TaskStore.queue_position`."""
        now, row = self._clock.now(), self._rows.get(task.id)
        if row is None or not row.is_pending or row.task.due_at > now:
            return None
        return self._turns[row.task.executor].position(row, now)

    async def request_cancel(self, task_id: str, owner: str | None) -> Task | None:
        """See `TaskStore.request_cancel`."""
        row = self._visible(task_id, owner)
        if row is None:
            return None
        task = row.task.cancel_requested(self._clock.now())
        if task is not row.task:
            self._cancel(row, task)
        return task

    async def delete(self, task_id: str, owner: str | None) -> bool:
        """See `TaskStore.delete`."""
        row = self._visible(task_id, owner)
        if row is None:
            return False
        was_running = row.task.status is TaskStatus.RUNNING
        self._remove(row)
        if was_running:
            self.tell_cancel()
        self.tell_end([task_id])
        return True

    async def log(self, task_id: str, owner: str | None, after: int, limit: int) -> LogPage | None:
        """See `TaskStore.log`."""
        row = self._visible(task_id, owner)
        if row is None:
            return None
        events = self._recorded.get(task_id, [])
        start = bisect_right(events, after, key=lambda event: event.number)
        asked, is_whole = events[start : start + limit], start + limit >= len(events)
        return LogPage(row.task, asked, is_whole, _last_output(events))

    async def standings(self, task_ids: Collection[str]) -> Mapping[str, Standing]:
        """See `TaskStore.standings`."""
        rows = {task_id: self._rows.get(task_id) for task_id in task_ids}
        return {task_id: _standing(row.task) for task_id, row in rows.items() if row is not None}

    async def queue(self, owner: str | None) -> QueueView:
        """See `TaskStore.queue`."""
        now, tasks = self._clock.now(), [row.task for row in self._live(owner)]
        running = Counter(_kind(task) for task in tasks if task.status is TaskStatus.RUNNING)
        pending = [task for task in tasks if task.status is TaskStatus.PENDING]
        waiting = Counter(map(_kind, pending))
        lines = [QueueLine(*kind, waiting[kind], running[kind]) for kind in waiting | running]
        due_since = [task.due_at for task in pending if task.due_at <= now]
        oldest = seconds_between(min(due_since), now) if due_since else None
        return QueueView(lines, oldest, self._presence.workers(), self._spent(owner))

    async def backlog_seconds(self) -> float:
        """See `TaskStore.backlog_seconds`."""
        now = self._clock.now()
        firsts = [turns.first(now) for turns in self._turns.values()]
        due_since = [row.task.due_at for row in firsts if row is not None]
        return max((seconds_between(due_at, now) for due_at in [*due_since, now]), default=0.0)

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
        claims = [
            self._claim(row, now, lease)
            for executor, free in room.items()
            for row in self._turns[executor].take(free, now)
        ]
        self.tell_events(claim.task.id for claim in claims)
        return claims

    async def renew(self, fences: Collection[Fence], lease_seconds: float) -> set[Fence]:
        """See `TaskQueue.renew`."""
        until = self._clock.monotonic() + lease_seconds
        held = {fence for fence in fences if self._running(fence) is not None}
        for fence in held:
            worker = self._leases[fence.task_id].worker
            self._leases[fence.task_id] = _Lease(worker, until)
        return held

    async def settle(self, outcomes: Sequence[Outcome]) -> list[TaskStatus | None]:
        """See `TaskQueue.settle`."""
        now = self._clock.now()
        written = [self._settle(outcome, now) for outcome in outcomes]
        self.tell_moves(outcomes, written)
        return written

    async def append(self, entries: Sequence[Entry]) -> list[bool]:
        """See `TaskQueue.append`."""
        appended = [self._append(entry) for entry in entries]
        self.tell_events(entry.fence.task_id for entry in entries)
        return appended

    async def interruptions(self, fences: Collection[Fence]) -> Mapping[Fence, Interruption]:
        """See `TaskQueue.interruptions`."""
        reasons = {fence: self._interruption(fence) for fence in fences}
        return {fence: reason for fence, reason in reasons.items() if reason is not None}

    async def reclaim(self, max_crashes: int, limit: int) -> list[Reclaimed]:
        """See `TaskQueue.reclaim`."""
        now, monotonic = self._clock.now(), self._clock.monotonic()
        expired = [task_id for task_id, lease in self._leases.items() if lease.until < monotonic]
        reclaimed = [self._reclaim(task_id, now, max_crashes) for task_id in expired[:limit]]
        self.tell_moves(reclaimed, [one.status for one in reclaimed])
        return reclaimed

    async def expire(self, limit: int) -> int:
        """See `TaskQueue.expire`."""
        now = self._clock.now()
        overdue = self._take_overdue(limit, now)
        for row in overdue:
            self._finish(row, row.task.expired(now))
        if overdue:
            self.tell_end([row.task.id for row in overdue])
        return len(overdue)

    async def announce(self, worker: str, executors: Collection[str], seconds: float) -> None:
        """See `TaskQueue.announce`."""
        self._presence.announce(worker, executors, seconds)

    async def reroute(self, executors: Collection[str], routes: Routes) -> int:
        """See `TaskQueue.reroute`."""
        now, strange = self._clock.now(), self._turns.keys() - set(executors)
        moved = [row for row in self._live(None) if row.is_pending and row.task.executor in strange]
        for executor in strange:
            del self._turns[executor]
        for row in moved:
            self._enqueue(row, row.task.routed(routes.executor_for(row.task.model)), now)
        if moved:
            self.tell_work()
        return len(moved)

    # --- what is asked for -------------------------------------------------------------------

    def _visible(self, task_id: str, owner: str | None) -> Row | None:
        row = self._rows.get(task_id)
        return row if row is not None and owner in (None, row.task.owner) else None

    def _owners(self, owner: str | None) -> Iterable[Owned]:
        if owner is None:
            return self._owned.values()
        return [self._owned[owner]] if owner in self._owned else []

    def _walk(self, query: TaskQuery) -> Iterator[Row]:
        walks = [owned.walk(query) for owned in self._owners(query.owner)]
        return merge(*walks, key=place, reverse=query.newest_first)

    def _spent(self, owner: str | None) -> list[UsageLine]:
        return summed(
            UsageLine(*kind, usage)
            for one, lines in self._usage.items()
            if owner in (None, one)
            for kind, usage in lines.items()
        )

    def _live(self, owner: str | None) -> Iterator[Row]:
        return chain.from_iterable(owned.live.values() for owned in self._owners(owner))

    def _interruption(self, fence: Fence) -> Interruption | None:
        row = self._running(fence)
        if row is None:
            return Interruption.LOST
        return None if row.task.cancel_requested_at is None else Interruption.CANCEL

    def _running(self, fence: Fence) -> Row | None:
        """The row that this attempt may still write to."""
        row = self._rows.get(fence.task_id)
        return row if row is not None and row.task.is_running(fence.attempt) else None

    # --- steps -------------------------------------------------------------------------------

    def _submit(self, new: NewTask, now: int, max_pending: int) -> SubmitAnswer:
        repeated = self._repeated(new, now)
        if repeated is not None:
            return repeated
        pending = self._count[TaskStatus.PENDING]
        return QueueFull(pending) if pending >= max_pending else self._add(new, now)

    def _repeated(self, new: NewTask, now: int) -> Replayed | Mismatch | None:
        """The answer to a key that was used before."""
        if new.idempotency is None:
            return None
        row = self._of_key.get((new.owner, new.idempotency.key))
        if row is None or after(row.created_at, KEY_KEPT_SECONDS) <= now:
            return None
        return Replayed(row.task) if row.idempotency == new.idempotency else Mismatch()

    def _add(self, new: NewTask, now: int) -> Accepted:
        self._accepted += 1
        task = new.accepted(now)
        row = Row(now, self._accepted, task, new.input, shared(new.options), new.idempotency)
        self._rows[task.id] = row
        self._count[TaskStatus.PENDING] += 1
        self._owned[task.owner].add(row)
        if new.idempotency is not None:
            self._of_key[task.owner, new.idempotency.key] = row
        if task.deadline is not None:
            self._deadlines.push(row)
        self._turns[task.executor].add(row, now)
        return Accepted(task)

    def _take_overdue(self, limit: int, now: int) -> list[Row]:
        """Pending tasks past their deadline. Those that run keep their places in the order."""
        overdue: list[Row] = []
        running: list[Row] = []
        while len(overdue) < limit and (row := self._deadlines.first()) is not None:
            if not row.task.overdue(now):
                break
            self._deadlines.pop()
            (overdue if row.is_pending else running).append(row)
        for row in running:
            self._deadlines.push(row)
        return overdue

    def _claim(self, row: Row, now: int, lease: _Lease) -> Claim:
        self._leases[row.task.id] = lease
        self._move(row, row.task.claimed(now))
        return Claim(row.task, row.input, row.options)

    def _cancel(self, row: Row, task: Task) -> None:
        if task.done:
            self._finish(row, task)
            self.tell_end([task.id])
        else:
            row.task = task
            self.tell_cancel()

    def _settle(self, outcome: Outcome, now: int) -> TaskStatus | None:
        row = self._running(outcome.fence)
        if row is None:
            return None
        self._leave_worker(row, settled(row.task, outcome, now), now)
        return row.task.status

    def _reclaim(self, task_id: str, now: int, max_crashes: int) -> Reclaimed:
        row = self._rows[task_id]
        fence = Fence(task_id, row.task.attempt)
        self._leave_worker(row, row.task.worker_vanished(now, max_crashes), now)
        return Reclaimed(fence, row.task.status)

    def _append(self, entry: Entry) -> bool:
        row = self._running(entry.fence)
        if row is None:
            return False
        if row.task.recorded == entry.before:
            first = number_of_recorded(entry.fence.attempt, entry.before)
            self._recorded.setdefault(row.task.id, []).extend(
                Event(number, what) for number, what in enumerate(entry.events, first)
            )
            row.task = row.task.told(len(entry.events), progress_in(entry.events))
        return True

    def _leave_worker(self, row: Row, task: Task, now: int) -> None:
        del self._leases[task.id]
        if lost := lost_until(task):
            events = self._recorded.get(task.id, [])
            del events[: bisect_right(events, lost, key=lambda event: event.number)]
        if task.done:
            self._finish(row, task)
        else:
            # What kept its turn was due when it was claimed, whatever the clock says now.
            keeps_its_turn = task.due_at == row.task.due_at
            self._enqueue(row, task, task.due_at if keeps_its_turn else now)

    def _move(self, row: Row, task: Task) -> None:
        self._count[row.task.status] -= 1
        self._count[task.status] += 1
        row.task = task

    def _enqueue(self, row: Row, task: Task, now: int) -> None:
        self._move(row, task)
        self._turns[task.executor].add(row, now)

    def _finish(self, row: Row, task: Task) -> None:
        self._move(row, task)
        if task.usage is not None:
            self._spend(task, task.usage)
        del self._owned[task.owner].live[task.id]
        self._by_completion.push(row)
        self._by_creation.push(row)

    def _spend(self, task: Task, usage: Usage) -> None:
        lines, kind = self._usage[task.owner], _kind(task)
        if kind not in lines and len(lines) >= MOST_USAGE_LINES:
            kind = (task.executor, None)
        lines[kind] = lines.get(kind, NO_USAGE).plus(usage)

    # --- removal -----------------------------------------------------------------------------

    def _make_room(self, retention: RetentionPolicy, arriving: int, limit: int) -> int:
        removed = self._remove_expired(retention.finished_before(self._clock.now()), limit)
        excess = retention.excess(len(self._rows), arriving)
        return removed + self._remove_oldest(min(excess, limit - removed))

    def _remove_expired(self, before: int | None, limit: int) -> int:
        removed = 0
        while before is not None and removed < limit:
            row = self._by_completion.first()
            if row is None or (row.task.completed_at or 0) >= before:
                break
            self._remove(row)
            removed += 1
        return removed

    def _remove_oldest(self, limit: int) -> int:
        """Finished tasks, the oldest by creation first."""
        removed = 0
        while removed < limit and (row := self._by_creation.first()) is not None:
            self._remove(row)
            removed += 1
        return removed

    def _remove(self, row: Row) -> None:
        task = row.task
        del self._rows[task.id]
        self._count[task.status] -= 1
        self._leases.pop(task.id, None)
        self._recorded.pop(task.id, None)
        self._owned[task.owner].live.pop(task.id, None)
        self._free_key(row)
        row.remove()

    def _free_key(self, row: Row) -> None:
        if row.idempotency is None:
            return
        key = row.task.owner, row.idempotency.key
        if self._of_key.get(key) is row:  # else an old one, used anew since
            del self._of_key[key]


def _standing(task: Task) -> Standing:
    return Standing(task.status, task.attempt, task.recorded)


def _last_output(events: Sequence[Event]) -> Output | None:
    outputs = (event.what for event in reversed(events) if isinstance(event.what, Output))
    return next(outputs, None)


def _is_removed(row: Row) -> bool:
    return row.is_removed


def _kind(task: Task) -> tuple[str, str | None]:
    return task.executor, task.model


def _found(row: Row, query: TaskQuery) -> Found:
    task = row.task if query.with_result else replace(row.task, result=None)
    return Found(task, row.input if query.with_input else None)
