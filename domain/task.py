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


TRANSITIONS: Final[Mapping[tuple[TaskStatus, Move], TaskStatus]] = MappingProxyType(
    {
        (TaskStatus.PENDING, Move.CLAIM): TaskStatus.RUNNING,
        (TaskStatus.RUNNING, Move.COMPLETE): TaskStatus.COMPLETED,
        (TaskStatus.RUNNING, Move.FAIL): TaskStatus.FAILED,
        (TaskStatus.RUNNING, Move.RETRY): TaskStatus.PENDING,
        (TaskStatus.RUNNING, Move.HAND_BACK): TaskStatus.PENDING,
        (TaskStatus.RUNNING, Move.LOSE_WORKER): TaskStatus.PENDING,
        (TaskStatus.RUNNING, Move.GIVE_UP): TaskStatus.FAILED,
    }
)
"""Everything that is not in this table is refused. `FAIL` is the executor's failure, `GIVE_UP` the
end of a task whose worker vanished too often."""


class TaskError(Struct, frozen=True):
    """Why a task failed. `retryable`: a new task with the same input might succeed."""

    code: str
    message: str
    retryable: bool


def worker_lost(max_crashes: int) -> TaskError:
    """The error of a task whose worker vanished once more than it may."""
    message = f"its worker vanished more often than worker.max_crashes ({max_crashes}) allows"
    return TaskError("worker_lost", message, retryable=False)


class TransitionRefused(ValueError):
    """The task is not in a state from which this move leads anywhere."""

    def __init__(self, status: TaskStatus, move: Move) -> None:
        super().__init__(f"a {status} task cannot {move}")


class Task(Struct, frozen=True, kw_only=True, gc=False):
    """The record of one task. A move makes a new record; a terminal record never changes again.

    `rank` is the order of claims: the instant at which the task became due; it is not claimed
    before. `started_at` is that of the latest attempt, None while pending. `result` is JSON text.
    Input and options are kept apart from the record (see `Claim`), for they never change.
    """

    id: str
    owner: str
    status: TaskStatus
    executor: str
    model: str | None
    metadata: Mapping[str, str]
    timeout_seconds: float
    max_attempts: int
    rank: int
    created_at: int
    attempt: int = 0
    failures: int = 0
    crashes: int = 0
    started_at: int | None = None
    completed_at: int | None = None
    result: bytes | None = None
    usage: Usage | None = None
    error: TaskError | None = None

    @property
    def done(self) -> bool:
        """Whether the task is in a terminal state."""
        return self.status in TERMINAL

    def claimed(self, now: int) -> "Task":
        """A worker starts the next attempt."""
        return replace(
            self, status=self._after(Move.CLAIM), attempt=self.attempt + 1, started_at=now
        )

    def completed(self, now: int, result: bytes, usage: Usage | None) -> "Task":
        """The executor gave a result."""
        status = self._after(Move.COMPLETE)
        return replace(self, status=status, completed_at=now, result=result, usage=usage)

    def failed(self, now: int, error: TaskError) -> "Task":
        """The executor failed, and no other attempt follows."""
        status = self._after(Move.FAIL)
        return replace(
            self, status=status, completed_at=now, error=error, failures=self.failures + 1
        )

    def retried(self, due: int) -> "Task":
        """The executor failed; the next attempt may start at `due`."""
        status = self._after(Move.RETRY)
        return replace(self, status=status, rank=due, started_at=None, failures=self.failures + 1)

    def handed_back(self) -> "Task":
        """Its worker stops in good order: neither a failure nor a crash, and its turn is kept."""
        return replace(self, status=self._after(Move.HAND_BACK), started_at=None)

    def worker_vanished(self, now: int, max_crashes: int) -> "Task":
        """The lease ran out. It is pending again with its turn kept, or it crashed too often."""
        crashes = self.crashes + 1
        if crashes > max_crashes:
            status, error = self._after(Move.GIVE_UP), worker_lost(max_crashes)
            return replace(self, status=status, completed_at=now, error=error, crashes=crashes)
        return replace(self, status=self._after(Move.LOSE_WORKER), started_at=None, crashes=crashes)

    def routed(self, executor: str) -> "Task":
        """Another executor will run the task; allowed while it is pending, keeps its turn."""
        return replace(self, executor=executor)

    def _after(self, move: Move) -> TaskStatus:
        status = TRANSITIONS.get((self.status, move))
        if status is None:
            raise TransitionRefused(self.status, move)
        return status


class NewTask(Struct, frozen=True, kw_only=True):
    """A task on its way into a store, which gives it its time. `input` and `options`: JSON text."""

    id: str
    owner: str
    executor: str
    model: str | None
    metadata: Mapping[str, str]
    timeout_seconds: float
    max_attempts: int
    input: bytes
    options: bytes

    def accepted(self, now: int) -> Task:
        """The record of this task, created and due at `now`."""
        return Task(
            id=self.id,
            owner=self.owner,
            status=TaskStatus.PENDING,
            executor=self.executor,
            model=self.model,
            metadata=self.metadata,
            timeout_seconds=self.timeout_seconds,
            max_attempts=self.max_attempts,
            rank=now,
            created_at=now,
        )
