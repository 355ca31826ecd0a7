"""What is kept of a task, and how it stands in the orders of the store."""

from functools import lru_cache
from typing import Final

from msgspec import Struct

from domain.task import NO_METADATA, Idempotency, Task, TaskStatus

_REMOVED: Final = Task(
    id="",
    owner="",
    status=TaskStatus.CANCELLED,
    executor="",
    model=None,
    metadata=NO_METADATA,
    timeout_seconds=0,
    max_attempts=0,
    rank=0,
    due_at=0,
    created_at=0,
)
"""Stands in the row of a task that was removed, so that nothing of it is kept alive."""


_SHARED_BYTES: Final = 200


def shared(options: bytes) -> bytes:
    """These options; equal ones of many tasks are mostly one object."""
    return _first_equal(options) if len(options) <= _SHARED_BYTES else options


@lru_cache(1024)
def _first_equal(options: bytes) -> bytes:
    return options


class Row(Struct, gc=False, eq=False):
    """A task and what never changes about it. `number` is the order of acceptance."""

    created_at: int
    number: int
    task: Task
    input: bytes
    options: bytes
    idempotency: Idempotency | None

    @property
    def is_pending(self) -> bool:
        """Whether the task still waits for a worker."""
        return self.task.status is TaskStatus.PENDING

    @property
    def is_removed(self) -> bool:
        """Whether only the row is left of the task, where it stood in some order."""
        return self.task is _REMOVED

    def remove(self) -> None:
        """Let go of everything but the row's place."""
        self.task = _REMOVED
        self.input = self.options = b""
        self.idempotency = None
