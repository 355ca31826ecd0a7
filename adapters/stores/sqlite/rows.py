"""Tasks as the statements of this folder write them, and read them back."""

from collections.abc import Sequence
from typing import Any, assert_never

from adapters.json_columns import error_from, json_text, metadata_from, usage_from
from domain.instants import after
from domain.ports import Completed, Failed, HandedBack, Outcome, Retry
from domain.task import NewTask, Task, TaskStatus


def submitted(number: int, new: NewTask, now: int) -> tuple[Any, ...]:
    """The values of `submit_task.sql`: due as soon as it is created."""
    return (
        number,
        new.id,
        new.owner,
        new.executor,
        new.model,
        new.timeout_seconds,
        new.max_attempts,
        now,
        now,
    )


def payload(number: int, new: NewTask) -> tuple[Any, ...]:
    """The values of `submit_payload.sql`."""
    return number, json_text(new.metadata), new.options, new.input


def claimed(task: Task, worker: str, lease_until: float) -> dict[str, Any]:
    """The values of `claim_task.sql`, for a task that was just claimed."""
    return {
        "id": task.id,
        "attempt": task.attempt,
        "started_at": task.started_at,
        "worker": worker,
        "lease_until": lease_until,
    }


def settled(outcome: Outcome, now: int) -> dict[str, Any]:
    """The values of `settle_task.sql`; `due` None keeps the turn."""
    values: dict[str, Any] = {
        "id": outcome.fence.task_id,
        "attempt": outcome.fence.attempt,
        "status": TaskStatus.PENDING.value,  # sqlite3 is slow with what is not exactly a str
        "failed": 0,
        "due": None,
        "completed_at": None,
        "usage": None,
        "error": None,
    }
    match outcome:
        case Completed(usage=usage):
            values |= {"status": TaskStatus.COMPLETED.value, "completed_at": now}
            values |= {"usage": json_text(usage)}
        case Failed(error=error):
            values |= {"status": TaskStatus.FAILED.value, "completed_at": now}
            values |= {"error": json_text(error), "failed": 1}
        case Retry(seconds=seconds):
            values |= {"due": after(now, seconds), "failed": 1}
        case HandedBack():
            pass
        case _:
            assert_never(outcome)
    return values


def reclaimed(task: Task, monotonic: float) -> dict[str, Any]:
    """The values of `reclaim_task.sql`, for a task whose worker vanished before `monotonic`."""
    return {
        "id": task.id,
        "attempt": task.attempt,
        "monotonic": monotonic,
        "status": task.status,
        "crashes": task.crashes,
        "started_at": task.started_at,
        "completed_at": task.completed_at,
        "error": json_text(task.error),
    }


def task_from(row: Sequence[Any]) -> Task:
    """The task of a row of `get_task.sql`, or of another that begins with the same columns."""
    (
        task_id,
        owner,
        status,
        executor,
        model,
        timeout_seconds,
        max_attempts,
        rank,
        created_at,
        attempt,
        failures,
        crashes,
        started_at,
        completed_at,
        usage,
        error,
        metadata,
        result,
    ) = row[:18]
    return Task(
        id=task_id,
        owner=owner,
        status=TaskStatus(status),
        executor=executor,
        model=model,
        metadata=metadata_from(metadata),
        timeout_seconds=timeout_seconds,
        max_attempts=max_attempts,
        rank=rank,
        created_at=created_at,
        attempt=attempt,
        failures=failures,
        crashes=crashes,
        started_at=started_at,
        completed_at=completed_at,
        result=result,
        usage=usage_from(usage),
        error=error_from(error),
    )
