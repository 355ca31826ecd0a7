"""A store that keeps its tasks in a dict, and forgets them with the process.

It goes through all tasks on every call, so it is for a few thousand at most. Each method is one
step because nothing in it awaits, and what becomes of a task is left to the moves of `Task`.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import chain, count
from operator import gt, lt
from types import TracebackType
from typing import ClassVar, Self

from msgspec import Struct
from msgspec.structs import replace

from domain.events import Event, LogPage, Output, lost_until, number_of_recorded, progress_in
from domain.inference import Routes, Usage
from domain.instants import after, seconds_between
from domain.ports import (
    KEY_KEPT_SECONDS,
    LONGEST_POSITION,
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
from shelf.hints import Hints


class ShelfOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing can be chosen."""


class ShelfTaskStore(Hints):
    """The three ports of a store: for clients, for workers, and hints."""

    options_type: ClassVar[type[Struct]] = ShelfOptions
    is_shared: ClassVar[bool] = False

    def __init__(self, _options: ShelfOptions, clock: Clock) -> None:
        super().__init__(clock.monotonic)
        self._clock = clock
        self._tasks: dict[str, Task] = {}  # in the order of acceptance
        self._payloads: dict[str, tuple[bytes, bytes]] = {}  # input and options
        self._leases: dict[str, float] = {}  # of running tasks, by the monotonic clock
        self._keys: dict[tuple[str, str], tuple[bytes, str]] = {}  # fingerprint and task's id
        self._workers: dict[str, tuple[Collection[str], float]] = {}
        self._numbers: dict[str, int] = {}  # the order of acceptance
        self._counter = count(1)
        self._in_turn: set[str] = set()  # tasks that were due once, whatever the clock says now
        self._spent: defaultdict[str, list[UsageLine]] = defaultdict(list)  # by whom
        self._recorded: defaultdict[str, list[Event]] = defaultdict(list)

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
    ) -> list[SubmitAnswer]:
        self._remove_finished(limits.retention, len(new_tasks), PURGED_PER_SUBMIT)
        return [self._add(new, limits.max_pending) for new in new_tasks]

    async def get(self, task_id: str, owner: str | None) -> Task | None:
        task = self._tasks.get(task_id)
        return task if task is not None and owner in (None, task.owner) else None

    async def payload(self, task_id: str, owner: str | None) -> Payload | None:
        found = await self.get(task_id, owner)
        return Payload(*self._payloads[task_id]) if found else None

    async def find(self, query: TaskQuery) -> Page:
        places = [(Position(t.created_at, self._numbers[t.id]), t) for t in self._tasks.values()]
        places.sort(key=lambda place: _order(place[0]), reverse=query.newest_first)
        if query.start is not None:
            start = _order(query.start)
            is_beyond = lt if query.newest_first else gt
            places = [place for place in places if is_beyond(_order(place[0]), start)]
        seen = [p for p in places if query.owner in (None, p[1].owner)][:ROWS_PER_PAGE]
        matching = [place for place in seen if query.matches(place[1])]
        found = [self._found(task, query) for _, task in matching[: query.limit]]
        if len(matching) > query.limit:
            return Page(found, matching[query.limit - 1][0])
        return Page(found, seen[-1][0] if len(seen) == ROWS_PER_PAGE else None)

    async def queue_position(self, task: Task) -> int | None:
        ids = [due.id for due in self._due(task.executor)]
        place = ids.index(task.id) + 1 if task.id in ids else None
        return None if place is None else min(place, LONGEST_POSITION)

    async def request_cancel(self, task_id: str, owner: str | None) -> Task | None:
        task = await self.get(task_id, owner)
        if task is not None and not task.done:
            self._put(task.cancel_requested(self._clock.now()))
            self.tell("cancel")
        return self._tasks.get(task_id) if task else None

    async def delete(self, task_id: str, owner: str | None) -> bool:
        task = await self.get(task_id, owner)
        if task is None:
            return False
        self._remove(task)
        self.tell("cancel")
        self.tell("end", [task_id])
        return True

    async def log(self, task_id: str, owner: str | None, after: int, limit: int) -> LogPage | None:
        task = await self.get(task_id, owner)
        if task is None:
            return None
        recorded = self._recorded[task_id]
        asked = [event for event in recorded if event.number > after]
        outputs = [event.what for event in recorded if isinstance(event.what, Output)]
        last_output = outputs[-1] if outputs else None
        return LogPage(task, asked[:limit], len(asked) <= limit, last_output)

    async def standings(self, task_ids: Collection[str]) -> Mapping[str, Standing]:
        there = [self._tasks[key] for key in task_ids if key in self._tasks]
        return {task.id: Standing(task.status, task.attempt, task.recorded) for task in there}

    async def queue(self, owner: str | None) -> QueueView:
        live = [t for t in self._tasks.values() if not t.done and owner in (None, t.owner)]
        counted = Counter((task.executor, task.model, task.status) for task in live)
        lines = [
            QueueLine(*kind, counted[*kind, TaskStatus.PENDING], counted[*kind, TaskStatus.RUNNING])
            for kind in {(task.executor, task.model) for task in live}
        ]
        waits = [self._waits(t) for t in live if t.status is TaskStatus.PENDING]
        here = [names for names, until in self._workers.values() if until > self._clock.monotonic()]
        workers = Counter(name for names in here for name in names)
        oldest = max((w for w in waits if w >= 0), default=None)
        spent = [lines for whose, lines in self._spent.items() if owner in (None, whose)]
        return QueueView(lines, oldest, workers, summed(chain.from_iterable(spent)))

    async def backlog_seconds(self) -> float:
        executors = {task.executor for task in self._tasks.values()}
        first = [due[0] for due in map(self._due, executors) if due]
        return max([0.0, *map(self._waits, first)])

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
        return [
            self._start(task, now, lease_seconds)
            for executor, free in room.items()
            for task in [task for task in self._due(executor) if not task.overdue(now)][:free]
        ]

    async def renew(self, fences: Collection[Fence], lease_seconds: float) -> set[Fence]:
        held = {fence for fence in fences if self._running(fence)}
        until = self._clock.monotonic() + lease_seconds
        self._leases.update({fence.task_id: until for fence in held})
        return held

    async def settle(self, outcomes: Sequence[Outcome]) -> list[TaskStatus | None]:
        return [self._settle(outcome) for outcome in outcomes]

    async def append(self, entries: Sequence[Entry]) -> list[bool]:
        return [self._append(entry) for entry in entries]

    async def interruptions(self, fences: Collection[Fence]) -> Mapping[Fence, Interruption]:
        running = {fence: self._running(fence) for fence in fences}
        lost = {fence: Interruption.LOST for fence, task in running.items() if task is None}
        return lost | {
            fence: Interruption.CANCEL
            for fence, task in running.items()
            if task is not None and task.cancel_requested_at is not None
        }

    async def expire(self, limit: int) -> int:
        now = self._clock.now()
        late = [task for task in self._with_status(TaskStatus.PENDING) if task.overdue(now)][:limit]
        for task in late:
            self._put(task.expired(now))
        return len(late)

    async def announce(self, worker: str, executors: Collection[str], seconds: float) -> None:
        self._workers[worker] = (executors, self._clock.monotonic() + seconds)

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

    # --- steps -------------------------------------------------------------------------------

    def _with_status(self, status: TaskStatus) -> list[Task]:
        return [task for task in self._tasks.values() if task.status is status]

    def _put(self, task: Task) -> None:
        before, self._tasks[task.id] = self._tasks.get(task.id), task
        if task.status is not TaskStatus.RUNNING:
            self._leases.pop(task.id, None)
        if before and before.due_at != task.due_at:
            self._in_turn.discard(task.id)
        if self._waits(task) >= 0:
            self._in_turn.add(task.id)
        if lost := lost_until(task):
            recorded = self._recorded[task.id]
            self._recorded[task.id] = [event for event in recorded if event.number > lost]
        if task.done:
            self.tell("end", [task.id])
        if task.status is TaskStatus.PENDING:
            self.tell("work")
        if self.is_watched(task.id):
            self.tell("events", [task.id])

    def _due(self, executor: str) -> list[Task]:
        """The tasks of this executor whose time has come, in the order of claims."""
        pending = self._with_status(TaskStatus.PENDING)
        self._in_turn.update(task.id for task in pending if self._waits(task) >= 0)
        due = [task for task in pending if task.executor == executor and task.id in self._in_turn]
        return sorted(due, key=lambda task: (task.rank, self._numbers[task.id]))

    def _waits(self, task: Task) -> float:
        """For how long it has been due; negative while it is not."""
        return seconds_between(task.due_at, self._clock.now())

    def _found(self, task: Task, query: TaskQuery) -> Found:
        result = task.result if query.with_result else None
        given = self._payloads[task.id][0] if query.with_input else None
        return Found(replace(task, result=result), given)

    def _add(self, new: NewTask, max_pending: int) -> SubmitAnswer:
        if (earlier := self._earlier(new)) is not None:
            return earlier
        pending = len(self._with_status(TaskStatus.PENDING))
        if pending >= max_pending:
            return QueueFull(pending)
        if new.idempotency:
            self._keys[new.owner, new.idempotency.key] = (new.idempotency.fingerprint, new.id)
        self._payloads[new.id] = (new.input, new.options)
        self._numbers[new.id] = next(self._counter)
        self._put(new.accepted(self._clock.now()))
        return Accepted(self._tasks[new.id])

    def _earlier(self, new: NewTask) -> Replayed | Mismatch | None:
        """What came of the same key before, if it is still held."""
        if new.idempotency is None:
            return None
        fingerprint, task_id = self._keys.get((new.owner, new.idempotency.key), (b"", ""))
        task = self._tasks.get(task_id)
        if task is None or self._clock.now() > after(task.created_at, KEY_KEPT_SECONDS):
            return None
        return Replayed(task) if fingerprint == new.idempotency.fingerprint else Mismatch()

    def _start(self, task: Task, now: int, lease_seconds: float) -> Claim:
        self._put(task.claimed(now))
        self._leases[task.id] = self._clock.monotonic() + lease_seconds
        return Claim(self._tasks[task.id], *self._payloads[task.id])

    def _running(self, fence: Fence) -> Task | None:
        """The task, if this attempt may still write to it."""
        task = self._tasks.get(fence.task_id)
        return task if task is not None and task.is_running(fence.attempt) else None

    def _settle(self, outcome: Outcome) -> TaskStatus | None:
        task = self._running(outcome.fence)
        if task is None:
            return None
        ended = settled(task, outcome, self._clock.now())
        self._put(ended)
        if ended.usage is not None:
            self._spend(task, ended.usage)
        return ended.status

    def _spend(self, task: Task, usage: Usage) -> None:
        lines = self._spent[task.owner]
        is_known = any((task.executor, task.model) == (one.executor, one.model) for one in lines)
        is_one_too_many = not is_known and len(lines) >= MOST_USAGE_LINES
        model = None if is_one_too_many else task.model
        self._spent[task.owner] = summed([*lines, UsageLine(task.executor, model, usage)])

    def _append(self, entry: Entry) -> bool:
        task = self._running(entry.fence)
        if task is not None and task.recorded == entry.before:
            first = number_of_recorded(task.attempt, entry.before)
            events = [Event(number, what) for number, what in enumerate(entry.events, first)]
            self._recorded[task.id] += events
            self._put(task.told(len(events), progress_in(entry.events)))
        return task is not None

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
            self._remove(task)
        return len(going)

    def _remove(self, task: Task) -> None:
        del self._tasks[task.id], self._payloads[task.id], self._numbers[task.id]
        self._keys = {key: held for key, held in self._keys.items() if held[1] != task.id}
        self._leases.pop(task.id, None)
        self._recorded.pop(task.id, None)
        self._in_turn.discard(task.id)


def _order(position: Position) -> tuple[int, int]:
    return position.created_at, position.number
