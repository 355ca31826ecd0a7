"""A task: its states, the moves between them, and the record that is kept of it.

Instants are microseconds since the epoch, UTC, as the store's clock tells them; durations are
seconds. Three counters, each with one meaning: `attempt` counts claims, never falls, and is the
fence of every write by a worker; `failures` counts attempts that the executor failed;
`crashes` counts workers that vanished.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from domain.inference import Usage
from domain.instants import after, before

ANONYMOUS: Final = "anonymous"
NO_METADATA: Final[Mapping[str, str]] = {}
"""Shared by all tasks without any, so that a million of them do not keep a million empty dicts."""


class TaskStatus(StrEnum):
    """Closed for ever: a new terminal status would break the poll loop of every client."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL: Final = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED})


class Move(StrEnum):
    """What can happen to a task."""

    CLAIM = "claim"
    COMPLETE = "complete"
    FAIL = "fail"
    RETRY = "retry"
    HAND_BACK = "hand_back"
    LOSE_WORKER = "lose_worker"
    GIVE_UP = "give_up"
    CANCEL = "cancel"
    EXPIRE = "expire"


TRANSITIONS: Final[Mapping[tuple[TaskStatus, Move], TaskStatus]] = MappingProxyType(
    {
        (TaskStatus.PENDING, Move.CLAIM): TaskStatus.RUNNING,
        (TaskStatus.PENDING, Move.CANCEL): TaskStatus.CANCELLED,
        (TaskStatus.PENDING, Move.EXPIRE): TaskStatus.FAILED,
        (TaskStatus.RUNNING, Move.COMPLETE): TaskStatus.COMPLETED,
        (TaskStatus.RUNNING, Move.FAIL): TaskStatus.FAILED,
        (TaskStatus.RUNNING, Move.RETRY): TaskStatus.PENDING,
        (TaskStatus.RUNNING, Move.HAND_BACK): TaskStatus.PENDING,
        (TaskStatus.RUNNING, Move.LOSE_WORKER): TaskStatus.PENDING,
        (TaskStatus.RUNNING, Move.GIVE_UP): TaskStatus.FAILED,
        (TaskStatus.RUNNING, Move.CANCEL): TaskStatus.CANCELLED,
    }
)
"""Everything that is not in this table is refused. `FAIL` is the executor's failure, `GIVE_UP` the
end of a task whose worker vanished too often, `EXPIRE` that of one whose deadline passed while it
waited. Once the cancellation of a running task was asked for, each of its moves is `CANCEL`."""


class TaskError(Struct, frozen=True):
    """Why a task failed. `retryable`: a new task with the same input might succeed."""

    code: str
    message: str
    retryable: bool


WORKER_LOST: Final = "worker_lost"
DEADLINE_EXCEEDED: Final = TaskError(
    "deadline_exceeded", "the task did not end before its deadline", retryable=True
)


def worker_lost(max_crashes: int) -> TaskError:
    """The error of a task whose worker vanished once more than it may."""
    message = f"its worker vanished more often than worker.max_crashes ({max_crashes}) allows"
    return TaskError(WORKER_LOST, message, retryable=False)


class AttemptOutcome(StrEnum):
    """How an attempt ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    WORKER_LOST = "worker_lost"
    HANDED_BACK = "handed_back"


_OUTCOME_OF: Final = {status: AttemptOutcome(status.value) for status in TERMINAL}


class AttemptRecord(Struct, frozen=True, gc=False):
    """One attempt, as history keeps it. `ended_at` and `outcome` are None while it runs.

    `recorded` is what `Task.recorded` was when it ended.
    """

    number: int
    executor: str
    started_at: int
    ended_at: int | None
    outcome: AttemptOutcome | None
    error_code: str | None
    recorded: int = 0


MOST_PAST_ATTEMPTS: Final = 50
"""Of a task that is handed back again and again, the oldest attempts are forgotten."""


class TransitionRefused(ValueError):
    """The task is not in a state from which this move leads anywhere."""

    def __init__(self, status: TaskStatus, move: Move) -> None:
        super().__init__(f"a {status} task cannot {move}")


class Task(Struct, frozen=True, kw_only=True, gc=False):
    """The record of one task. A move makes a new record; a terminal record never changes again.

    `due_at` is the instant before which it is not claimed. `rank` is its place in the order of
    claims: `due_at`, less what its priority is worth. `not_before` is what the client asked for.
    `deadline` is the instant by which it must have ended. `started_at` is that of the latest
    attempt, None while pending. `past_attempts` are those after which it became pending again.
    `recorded` is how many events its attempts have recorded (see `domain.events`), `progress` how
    far the latest one said that it is, 0 … 1. `result` is JSON text. Input and options are kept
    apart from the record (see `Claim`), for they never change.
    """

    id: str
    owner: str
    status: TaskStatus
    executor: str
    model: str | None
    metadata: Mapping[str, str]
    timeout_seconds: float
    max_attempts: int
    priority: int = 0
    not_before: int | None = None
    deadline: int | None = None
    retry_of: str | None = None
    rank: int
    due_at: int
    created_at: int
    attempt: int = 0
    failures: int = 0
    crashes: int = 0
    started_at: int | None = None
    cancel_requested_at: int | None = None
    completed_at: int | None = None
    result: bytes | None = None
    usage: Usage | None = None
    error: TaskError | None = None
    past_attempts: tuple[AttemptRecord, ...] = ()
    recorded: int = 0
    progress: float | None = None

    @property
    def done(self) -> bool:
        """Whether the task is in a terminal state."""
        return self.status in TERMINAL

    @property
    def recorded_before(self) -> int:
        """What `recorded` was when the latest attempt began."""
        return self.past_attempts[-1].recorded if self.past_attempts else 0

    def is_running(self, attempt: int) -> bool:
        """Whether this attempt is the running one."""
        return self.status is TaskStatus.RUNNING and self.attempt == attempt

    def overdue(self, now: int) -> bool:
        """Whether its deadline passed."""
        return self.deadline is not None and self.deadline <= now

    @property
    def attempts(self) -> tuple[AttemptRecord, ...]:
        """Every attempt that is remembered, the latest last, also while it runs."""
        if self.started_at is None:
            return self.past_attempts
        return (*self.past_attempts, self._latest_attempt(self.started_at))

    def claimed(self, now: int) -> "Task":
        """A worker starts the next attempt."""
        return replace(
            self, status=self._after(Move.CLAIM), attempt=self.attempt + 1, started_at=now
        )

    def completed(self, now: int, result: bytes, usage: Usage | None) -> "Task":
        """The executor gave a result."""
        status = self._after(Move.COMPLETE)
        if self.cancel_requested_at is not None:
            return self.cancelled(now)
        return replace(self, status=status, completed_at=now, result=result, usage=usage)

    def failed(self, now: int, error: TaskError) -> "Task":
        """The executor failed, and no other attempt follows."""
        status = self._after(Move.FAIL)
        if self.cancel_requested_at is not None:
            return self.cancelled(now)
        return replace(
            self, status=status, completed_at=now, error=error, failures=self.failures + 1
        )

    def retried(self, now: int, seconds: float, error: TaskError) -> "Task":
        """The executor failed; the next attempt may start so many seconds from now."""
        status = self._after(Move.RETRY)
        if self.cancel_requested_at is not None:
            return self.cancelled(now)
        due = after(now, seconds)
        return replace(
            self,
            status=status,
            due_at=due,
            rank=due - (self.due_at - self.rank),
            started_at=None,
            progress=None,
            failures=self.failures + 1,
            past_attempts=self._past(now, AttemptOutcome.FAILED, error.code),
        )

    def handed_back(self, now: int) -> "Task":
        """Its worker stops in good order: neither a failure nor a crash, and its turn is kept."""
        status = self._after(Move.HAND_BACK)
        if self.cancel_requested_at is not None:
            return self.cancelled(now)
        past = self._past(now, AttemptOutcome.HANDED_BACK, None)
        return replace(self, status=status, started_at=None, progress=None, past_attempts=past)

    def worker_vanished(self, now: int, max_crashes: int) -> "Task":
        """The lease ran out. It is pending again with its turn kept, or it crashed too often."""
        self._after(Move.LOSE_WORKER)
        crashes = self.crashes + 1
        if self.cancel_requested_at is not None:
            return replace(self.cancelled(now), crashes=crashes)
        if crashes > max_crashes:
            status, error = self._after(Move.GIVE_UP), worker_lost(max_crashes)
            return replace(self, status=status, completed_at=now, error=error, crashes=crashes)
        past = self._past(now, AttemptOutcome.WORKER_LOST, WORKER_LOST)
        status = self._after(Move.LOSE_WORKER)
        return replace(
            self,
            status=status,
            started_at=None,
            progress=None,
            crashes=crashes,
            past_attempts=past,
        )

    def cancelled(self, now: int) -> "Task":
        """It ends without a result: it waited still, or its executor let go of it."""
        status = self._after(Move.CANCEL)
        asked = now if self.cancel_requested_at is None else self.cancel_requested_at
        return replace(self, status=status, completed_at=now, cancel_requested_at=asked)

    def cancel_requested(self, now: int) -> "Task":
        """A client wants no result any more. What waits is cancelled, what runs is to be stopped.

        Asked again, or of a finished task, it changes nothing.
        """
        if self.done or self.cancel_requested_at is not None:
            return self
        if self.status is TaskStatus.PENDING:
            return self.cancelled(now)
        return replace(self, cancel_requested_at=now)

    def expired(self, now: int) -> "Task":
        """Its deadline passed while it waited."""
        status = self._after(Move.EXPIRE)
        return replace(self, status=status, completed_at=now, error=DEADLINE_EXCEEDED)

    def told(self, events: int, progress: float | None) -> "Task":
        """The running attempt recorded so many events, and perhaps said how far it is."""
        progress = self.progress if progress is None else progress
        return replace(self, recorded=self.recorded + events, progress=progress)

    def routed(self, executor: str) -> "Task":
        """Another executor will run the task; allowed while it is pending, keeps its turn."""
        return replace(self, executor=executor)

    def _after(self, move: Move) -> TaskStatus:
        status = TRANSITIONS.get((self.status, move))
        if status is None:
            raise TransitionRefused(self.status, move)
        return status

    def _past(
        self, now: int, outcome: AttemptOutcome, error_code: str | None
    ) -> tuple[AttemptRecord, ...]:
        """The past attempts once the running one has ended like this."""
        started = self.created_at if self.started_at is None else self.started_at
        ended = AttemptRecord(
            self.attempt, self.executor, started, now, outcome, error_code, self.recorded
        )
        return (*self.past_attempts, ended)[-MOST_PAST_ATTEMPTS:]

    def _latest_attempt(self, started_at: int) -> AttemptRecord:
        outcome = _OUTCOME_OF.get(self.status)
        code = None if self.error is None else self.error.code
        if code == WORKER_LOST:
            outcome = AttemptOutcome.WORKER_LOST
        return AttemptRecord(
            self.attempt,
            self.executor,
            started_at,
            self.completed_at,
            outcome,
            code,
            self.recorded,
        )


class Idempotency(Struct, frozen=True):
    """What makes the second of two equal submits a repetition: the client's key, within its owner.

    `fingerprint` stands for all that was asked for; another one under the same key is a mismatch.
    """

    key: str
    fingerprint: bytes


class NewTask(Struct, frozen=True, kw_only=True):
    """A task on its way into a store, which gives it its time. `input` and `options`: JSON text.

    It is due after `delay_seconds` or at `run_at` (None: now). `head_start_seconds` is what its
    priority is worth in the order of claims, negative for one below 0.
    """

    id: str
    owner: str
    executor: str
    model: str | None
    metadata: Mapping[str, str]
    timeout_seconds: float
    max_attempts: int
    input: bytes
    options: bytes
    priority: int = 0
    head_start_seconds: float = 0.0
    delay_seconds: float | None = None
    run_at: int | None = None
    deadline_seconds: float | None = None
    retry_of: str | None = None
    idempotency: Idempotency | None = None

    def accepted(self, now: int) -> Task:
        """The record of this task, created at `now`."""
        not_before = self.run_at
        if self.delay_seconds is not None:
            not_before = after(now, self.delay_seconds)
        due = now if not_before is None else max(now, not_before)
        return Task(
            id=self.id,
            owner=self.owner,
            status=TaskStatus.PENDING,
            executor=self.executor,
            model=self.model,
            metadata=self.metadata,
            timeout_seconds=self.timeout_seconds,
            max_attempts=self.max_attempts,
            priority=self.priority,
            not_before=not_before,
            deadline=None if self.deadline_seconds is None else after(now, self.deadline_seconds),
            retry_of=self.retry_of,
            rank=before(due, self.head_start_seconds) if self.head_start_seconds else due,
            due_at=due,
            created_at=now,
        )
