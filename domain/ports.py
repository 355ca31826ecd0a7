"""What the domain asks of the world: stores, executors, a clock.

An adapter can be written from this page alone, and `adapters.testing` ships the contract suites
that hold it to every sentence. Where a sentence says *one step*, it happens whole or not at all,
also when the process is killed in the middle.

Every store method raises `StoreUnavailable` where the store does not answer; the caller may try
again later. An adapter is opened as an async context manager made from its own options Struct (see
`StoreFactory`, `ExecutorFactory`); all its methods are called from one event loop.
"""

from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import Any, Final, Protocol

from msgspec import Struct

from domain.events import LogPage, Recorded
from domain.inference import NO_USAGE, InferenceRequest, Piece, Routes, Usage
from domain.query import Page, TaskQuery
from domain.retention import RetentionPolicy
from domain.task import TERMINAL, AttemptOutcome, NewTask, Task, TaskError, TaskStatus


class Clock(Protocol):
    """Time. Embedded stores and workers are given one; a shared store uses its own."""

    def now(self) -> int:
        """The wall clock in microseconds since the epoch, UTC. It may jump either way."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back. For leases, timeouts and delays."""
        ...


# --- for clients -----------------------------------------------------------------------------


class Standing(Struct, frozen=True):
    """What tells whether anything happened to a task since the last look: then one is larger.

    `attempt` and `recorded` are those of `Task`.
    """

    status: TaskStatus
    attempt: int
    recorded: int

    @property
    def done(self) -> bool:
        """Whether the task is in a terminal state."""
        return self.status in TERMINAL


class SubmitLimits(Struct, frozen=True):
    """What a submit is checked against, in the same step that stores the task."""

    max_pending: int
    retention: RetentionPolicy


class Accepted(Struct, frozen=True):
    """The task is stored, as durably as the store promises."""

    task: Task


class Replayed(Struct, frozen=True):
    """Nothing was stored: the same was asked for before, under the same key; this came of it."""

    task: Task


class Mismatch(Struct, frozen=True):
    """Nothing was stored: the key was used for something else."""


class QueueFull(Struct, frozen=True):
    """Nothing was stored: this many tasks are pending already."""

    pending: int


SubmitAnswer = Accepted | Replayed | Mismatch | QueueFull

KEY_KEPT_SECONDS: Final = 86_400.0
"""An idempotency key is free again after this, or as soon as its task is removed."""


class Payload(Struct, frozen=True):
    """What a task is to be run on. Both are JSON text, byte for byte as submitted."""

    input: bytes
    options: bytes


class QueueLine(Struct, frozen=True):
    """How many live tasks there are of one executor and model."""

    executor: str
    model: str | None
    pending: int
    running: int


class UsageLine(Struct, frozen=True):
    """What all completed tasks of one executor and model have cost, also those removed since."""

    executor: str
    model: str | None
    usage: Usage


def summed(lines: Iterable[UsageLine]) -> list[UsageLine]:
    """One line for each executor and model."""
    spent: dict[tuple[str, str | None], Usage] = {}
    for line in lines:
        kind = line.executor, line.model
        spent[kind] = spent.get(kind, NO_USAGE).plus(line.usage)
    return [UsageLine(*kind, usage) for kind, usage in spent.items()]


MOST_USAGE_LINES: Final = 1_000
"""An owner's usage of further models is summed under no model."""


class QueueView(Struct, frozen=True):
    """What waits, what runs, who is there to run it, and what was spent.

    `oldest_pending_seconds`: for how long the task has been due that became due first; None where
    none is. `workers`: how many workers there are now that run tasks of each executor. `usage`: a
    line where any was reported.
    """

    lines: list[QueueLine]
    oldest_pending_seconds: float | None
    workers: Mapping[str, int]
    usage: list[UsageLine]


class TaskCounts(Struct, frozen=True):
    """How many tasks the store holds, by status."""

    pending: int = 0
    running: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0

    @property
    def total(self) -> int:
        """All tasks, in every state."""
        return self.pending + self.running + self.completed + self.failed + self.cancelled


class TaskStore(Protocol):
    """What clients need: put tasks in, look at them, and keep the store from filling up."""

    async def submit(
        self, new_tasks: Sequence[NewTask], limits: SubmitLimits
    ) -> list[SubmitAnswer]:
        """Store the tasks, one answer each, in order; one step for them all.

        First makes room: removes what `purge` would, at most `PURGED_PER_SUBMIT` tasks, counting
        the new ones as stored already. This costs a comparison of numbers while there is nothing
        to remove. Then each task is stored as pending, created now, or refused when `max_pending`
        tasks are pending. Submits that wait at the same time may share the step.

        A task with an idempotency key that its owner used within `KEY_KEPT_SECONDS` for a task that
        is still there is not stored, also when the queue is full: `Replayed` where the fingerprint
        is the same, else `Mismatch`. Of any number of equal submits at once, in any number of
        processes, exactly one is `Accepted`.

        Raises `StorageFull` when there is too little room for another task.
        """
        ...

    async def get(self, task_id: str, owner: str | None) -> Task | None:
        """The task as last committed; None if it does not exist or belongs to somebody else.

        Here and below, `owner` None means that whose task it is does not matter.
        """
        ...

    async def payload(self, task_id: str, owner: str | None) -> Payload | None:
        """What the task is run on; None as in `get`."""
        ...

    async def find(self, query: TaskQuery) -> Page:
        """One page of the tasks that match, in the order of their creation, ties by acceptance.

        Reads at most `ROWS_PER_PAGE` tasks of an owner, whatever the filters, so a page may be
        short, or empty, though more follow. A task that matches throughout a walk over the pages is
        in exactly one of them.
        """
        ...

    async def queue_position(self, task: Task) -> int | None:
        """The task's place, from 1, in the order of claims among the due tasks of its executor.

        Counts up to `LONGEST_POSITION` and no further. None unless it is pending and due.
        """
        ...

    async def request_cancel(self, task_id: str, owner: str | None) -> Task | None:
        """Let nothing come of this task (`Task.cancel_requested`), and give it as it is then.

        None as in `get`. A pending task is cancelled when this returns, and never starts. The
        request outlives a crash: whatever would end a running task, or make it pending again, then
        makes it `cancelled`, and a result is thrown away.
        """
        ...

    async def delete(self, task_id: str, owner: str | None) -> bool:
        """Remove the task, whatever its state; its worker's lease is lost. False as in `get`."""
        ...

    async def log(self, task_id: str, owner: str | None, after: int, limit: int) -> LogPage | None:
        """The task, and at most `limit` (from 1) of the events it recorded behind number `after`.

        All of it as of one moment. The cost does not grow with what stands before. None as in
        `get`.
        """
        ...

    async def standings(self, task_ids: Collection[str]) -> Mapping[str, Standing]:
        """How these tasks stand, but for those that are not there (any more). One read."""
        ...

    async def queue(self, owner: str | None) -> QueueView:
        """The live tasks of this owner, counted, and what those cost that completed.

        The cost grows with the live tasks and with the lines of usage.
        """
        ...

    async def backlog_seconds(self) -> float:
        """For how long the task whose turn is next has been due; 0 where none is. One cheap read.

        Of several executors, the longest counts.
        """
        ...

    async def counts(self) -> TaskCounts:
        """The number of tasks by status, exact, at a cost that does not grow with them."""
        ...

    async def purge(self, retention: RetentionPolicy, limit: int) -> int:
        """Remove at most `limit` finished tasks, and tell how many. A live task is never removed.

        First those that finished before `retention.finished_before(now)`, then, while the total is
        above `max_tasks`, the oldest finished ones by creation. One step. The cost does not grow
        with the tasks that stay.
        """
        ...

    async def check(self) -> None:
        """Return if a submit of now would be taken; else raise `StoreUnavailable` or `StorageFull`.

        It really asks the store (a write lock, a round trip), so that readiness tells the truth.
        """
        ...


PURGED_PER_SUBMIT: Final = 100
"""How many tasks one `submit` removes at most, so that making room never holds up a claim."""

LONGEST_POSITION: Final = 1_000
"""A place in the queue is not counted beyond this."""


# --- for workers -----------------------------------------------------------------------------


class Fence(Struct, frozen=True):
    """Names one attempt. A write with it changes nothing unless that attempt is the running one."""

    task_id: str
    attempt: int


class Claim(Struct, frozen=True):
    """A task that is this worker's to run until its lease ends. `input`, `options`: JSON text."""

    task: Task
    input: bytes
    options: bytes

    @property
    def fence(self) -> Fence:
        """What this worker's writes name."""
        return Fence(self.task.id, self.task.attempt)


class Completed(Struct, frozen=True):
    """The executor gave a result (JSON text)."""

    fence: Fence
    result: bytes
    usage: Usage | None


class Failed(Struct, frozen=True):
    """The executor failed for good; counts as a failure."""

    fence: Fence
    error: TaskError


class Retry(Struct, frozen=True):
    """The executor failed; due again `seconds` after the store's now. Counts as a failure."""

    fence: Fence
    error: TaskError
    seconds: float


class HandedBack(Struct, frozen=True):
    """The worker stops before the attempt ended; due again in its old turn. Counts as nothing."""

    fence: Fence


class Crashed(Struct, frozen=True):
    """The process that ran the attempt died; it is as if its lease ran out (see `reclaim`)."""

    fence: Fence
    max_crashes: int


class Cancelled(Struct, frozen=True):
    """The executor let go, because a client asked for it, or is given no more time to do so."""

    fence: Fence


Outcome = Completed | Failed | Retry | HandedBack | Crashed | Cancelled

ATTEMPT_OUTCOMES: Final[Mapping[type[Outcome], AttemptOutcome]] = {
    Completed: AttemptOutcome.COMPLETED,
    Failed: AttemptOutcome.FAILED,
    Retry: AttemptOutcome.FAILED,
    HandedBack: AttemptOutcome.HANDED_BACK,
    Crashed: AttemptOutcome.WORKER_LOST,
    Cancelled: AttemptOutcome.CANCELLED,
}
"""How an outcome stands in the task's history, unless a cancel was requested."""


def settled(task: Task, outcome: Outcome, now: int) -> Task:
    """The running task, once its attempt ended like this."""
    match outcome:
        case Completed():
            return task.completed(now, outcome.result, outcome.usage)
        case Failed():
            return task.failed(now, outcome.error)
        case Retry():
            return task.retried(now, outcome.seconds, outcome.error)
        case HandedBack():
            return task.handed_back(now)
        case Crashed(max_crashes=max_crashes):
            return task.worker_vanished(now, max_crashes)
        case Cancelled():
            return task.cancelled(now)


class Entry(Struct, frozen=True):
    """What an attempt has to say. `before`: how many events its task had recorded until then."""

    fence: Fence
    before: int
    events: Sequence[Recorded]


class Interruption(StrEnum):
    """Why an attempt is to be stopped."""

    CANCEL = "cancel"
    """A client asked for it. The attempt is settled as `Cancelled` once its executor let go."""
    LOST = "lost"
    """The attempt is not the running one (any more): nothing is written."""


class Reclaimed(Struct, frozen=True):
    """A task whose worker vanished: pending again, or failed with `worker_lost`."""

    fence: Fence
    status: TaskStatus


class TaskQueue(Protocol):
    """What workers need: claims under leases, and fenced writes."""

    async def claim(
        self, worker: str, room: Mapping[str, int], lease_seconds: float
    ) -> list[Claim]:
        """Take due pending tasks, for each executor at most as many as it has room for. One step.

        Of one executor, the lowest `rank` first, ties in the order of acceptance. A task that is
        not due (`due_at`), whose deadline passed, or whose executor is not in `room`, is left alone
        and holds up no other. Each task becomes running with `attempt` + 1 under a lease of
        `lease_seconds` from now. No task is ever given to two callers under one attempt. The cost
        does not grow with stored tasks.
        """
        ...

    async def renew(self, fences: Collection[Fence], lease_seconds: float) -> set[Fence]:
        """Extend these leases to `lease_seconds` from now, and tell which of them still hold.

        A lease that expired but was not reclaimed yet is renewed. A missing one is lost for good:
        its attempt was settled, reclaimed or deleted.
        """
        ...

    async def settle(self, outcomes: Sequence[Outcome]) -> list[TaskStatus | None]:
        """Write how attempts ended, and tell for each what its task is now.

        Fenced: None means that the attempt is no longer the running one, and nothing changed. Where
        a cancel was requested, the task is now `cancelled`, whatever the outcome. Each outcome is
        one step; those that wait at the same time may share it.
        """
        ...

    async def append(self, entries: Sequence[Entry]) -> list[bool]:
        """Record what attempts say on their way, and tell for each whether it is recorded.

        Fenced: False means that the attempt is no longer the running one, and nothing changed. An
        entry that is recorded already (the task recorded more than `before`) changes nothing
        either. The events get the numbers that follow (`number_of_recorded`), and the task's
        progress becomes the latest among them. Each entry is one step; there is one at most of each
        attempt.
        """
        ...

    async def interruptions(self, fences: Collection[Fence]) -> Mapping[Fence, Interruption]:
        """Which of these attempts are to be stopped, and why. Changes nothing; one cheap read."""
        ...

    async def reclaim(self, max_crashes: int, limit: int) -> list[Reclaimed]:
        """Take at most `limit` running tasks whose lease has expired away from their workers.

        Each counts a crash, and becomes pending in its old turn; or fails with `worker_lost` when
        that makes more than `max_crashes`; or is cancelled, where that was requested. One step,
        which judges the lease as it is at that moment. When an embedded store is opened, every
        lease in it has expired.
        """
        ...

    async def expire(self, limit: int) -> int:
        """Fail at most `limit` pending tasks whose deadline passed, and tell how many. One step."""
        ...

    async def announce(self, worker: str, executors: Collection[str], seconds: float) -> None:
        """Tell that this worker runs tasks of these executors, until `seconds` from now.

        Said anew by those that go on. It is for people to look at (`queue`): claims do not need it.
        """
        ...

    async def reroute(self, executors: Collection[str], routes: Routes) -> int:
        """Route the pending tasks of executors other than these anew, and tell how many there were.

        Each goes to what `routes` chooses for its model, one of `executors`. Its turn is kept. One
        step.
        """
        ...


class TaskFeed(Protocol):
    """Hints. They only shorten a wait: any may be lost, late, or for nothing."""

    def on_work(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` on the event loop whenever there may be something new to claim.

        Returns a function that ends this. A listener is quick and does not raise.
        """
        ...

    def on_cancel(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` whenever there may be a running task to stop: cancelled or deleted."""
        ...

    def on_end(self, listener: Callable[[Collection[str]], None]) -> Callable[[], None]:
        """Call `listener` with the ids of tasks that ended, or were deleted."""
        ...

    def on_events(self, listener: Callable[[Collection[str]], None]) -> Callable[[], None]:
        """Call `listener` with the ids of watched tasks to which something happened."""
        ...

    def on_watch(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` whenever more tasks are watched."""
        ...

    def watch(self, task_ids: Collection[str]) -> None:
        """Somebody follows these tasks, here: so it is known for `WATCHED_SECONDS`, everywhere."""
        ...

    def is_watched(self, task_id: str) -> bool:
        """Whether somebody follows this task, here or elsewhere. It costs nothing."""
        ...


WATCHED_SECONDS: Final = 15.0
"""Who goes on watching says so anew before this is over."""


class Store(TaskStore, TaskQueue, TaskFeed, Protocol):
    """One adapter usually carries all three."""


class StoreFactory(Protocol):
    """What the registry finds under a store's name: most often the adapter's class itself.

    `options_type` is a Struct (frozen, unknown fields forbidden) for the options of the store,
    checked at start. Opening raises `StoreUnusable`, and then leaves everything as it was.
    """

    @property
    def options_type(self) -> type[Struct]:
        """The Struct of this store's options."""
        ...

    @property
    def is_shared(self) -> bool:
        """Whether several processes may have the same store open; else one owns all its tasks."""
        ...

    def __call__(self, options: Any, clock: Clock, /) -> AbstractAsyncContextManager[Store]:
        """A store that is open within `async with`."""
        ...


# --- executors -------------------------------------------------------------------------------


class Executor(Protocol):
    """Runs attempts. Many run at the same time."""

    def room(self) -> int | None:
        """For how many more attempts there is room now; None: it has no limit of its own.

        Asked before every claim, so it costs nothing. Where there is none, because the backend is
        known to be down, say, tasks wait in the store, and burn no attempt.
        """
        ...

    async def check(self) -> None:
        """Return if the backend would take an attempt now; else raise `ExecutorUnavailable`.

        It really asks, once and shortly (a few seconds at most), and begins no work there.
        """
        ...

    def run(self, request: InferenceRequest) -> AsyncGenerator[Piece, None]:
        """Yield what comes of the attempt as it comes, then exactly one result, last.

        Raises an `ExecutorError`, which says whether another attempt may succeed. It is cancelled
        like any coroutine, or closed early with `aclose()`: it then lets go of its backend before
        it returns. It holds no state of a task between attempts.
        """
        ...


class ExecutorFactory(Protocol):
    """What the registry finds under a kind of executor: most often the adapter's class itself.

    `options_type` is a Struct (frozen, unknown fields forbidden) for what stands in the settings
    under `executors.<name>` beside `kind`, `models` and `max_concurrent_tasks`. Opening raises
    `ExecutorUnusable` where one of them turns out to be wrong only then.
    """

    @property
    def options_type(self) -> type[Struct]:
        """The Struct of this executor's options."""
        ...

    def __call__(self, options: Any, /) -> AbstractAsyncContextManager[Executor]:
        """An executor that is open within `async with`."""
        ...
