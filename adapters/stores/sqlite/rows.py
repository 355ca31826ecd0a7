"""Tasks as the statements of this folder write them, and read them back."""

from collections.abc import Sequence
from typing import Any, Final

from adapters.json_columns import (
    attempts_from,
    error_from,
    json_text,
    kind_of,
    metadata_from,
    recorded_json,
    usage_from,
)
from domain.events import number_of_recorded, progress_in
from domain.inference import LARGEST_INTEGER
from domain.ports import Completed, Entry, Failed
from domain.query import TaskQuery
from domain.task import Idempotency, NewTask, Task, TaskStatus

_STATUS_OF: Final = {status.value: status for status in TaskStatus}  # calling it is slow
_FIRST: Final = (-1, 0)
_LAST: Final = (LARGEST_INTEGER, LARGEST_INTEGER)


def submitted(number: int, task: Task, idempotency: Idempotency | None) -> tuple[Any, ...]:
    """The values of `submit_task.sql`."""
    return (
        number,
        task.id,
        task.owner,
        task.executor,
        task.model,
        task.timeout_seconds,
        task.max_attempts,
        task.rank,
        task.created_at,
        task.due_at,
        int(task.due_at > task.created_at),
        task.priority,
        task.not_before,
        task.deadline,
        task.retry_of,
        None if idempotency is None else idempotency.key,
        None if idempotency is None else idempotency.fingerprint,
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


def finished(outcome: Completed | Failed, now: int) -> dict[str, Any]:
    """The values of `finish_task.sql`."""
    values: dict[str, Any] = {
        "id": outcome.fence.task_id,
        "attempt": outcome.fence.attempt,
        "completed_at": now,
    }
    if isinstance(outcome, Completed):  # sqlite3 is slow with what is not exactly a str
        return values | {"status": TaskStatus.COMPLETED.value, "failed": 0, "error": None}
    status, error = TaskStatus.FAILED.value, json_text(outcome.error)
    return values | {"status": status, "failed": 1, "error": error}


def moved(task: Task, is_waiting: bool) -> dict[str, Any]:
    """The values of `move_task.sql`, for a task after any move but a claim or a result."""
    return {
        "id": task.id,
        "status": task.status.value,
        "rank": task.rank,
        "due_at": task.due_at,
        "is_waiting": is_waiting,
        "failures": task.failures,
        "crashes": task.crashes,
        "started_at": task.started_at,
        "cancel_requested_at": task.cancel_requested_at,
        "completed_at": task.completed_at,
        "error": json_text(task.error),
        "past_attempts": json_text(task.past_attempts or None),
        "progress": task.progress,
    }


def appended(entry: Entry) -> dict[str, Any]:
    """The values of `append_to_task.sql`."""
    return {
        "id": entry.fence.task_id,
        "attempt": entry.fence.attempt,
        "before": entry.before,
        "count": len(entry.events),
        "progress": progress_in(entry.events),
    }


def event_rows(number: int, entry: Entry) -> list[dict[str, Any]]:
    """The values of `append_event.sql`, for the task of this number."""
    first = number_of_recorded(entry.fence.attempt, entry.before)
    return [
        {"number": number, "event": event, "kind": kind_of(what), "what": recorded_json(what)}
        for event, what in enumerate(entry.events, first)
    ]


def searched(query: TaskQuery) -> dict[str, Any]:
    """The values of `find_{order}.sql`, but for the owner."""
    after, before = _bounds(query)
    return {
        "statuses": json_text(query.statuses),
        "executor": query.executor,
        "model": query.model,
        "after_created_at": after[0],
        "after_number": after[1],
        "before_created_at": before[0],
        "before_number": before[1],
    }


def _bounds(query: TaskQuery) -> tuple[tuple[int, int], tuple[int, int]]:
    """The places between which the tasks are, themselves excluded."""
    after, before = _FIRST, _LAST
    if query.created_after is not None:
        after = (query.created_after, LARGEST_INTEGER)
    if query.created_before is not None:
        before = (query.created_before, 0)
    if query.start is None:
        return after, before
    start = (query.start.created_at, query.start.number)
    return (after, min(before, start)) if query.newest_first else (max(after, start), before)


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
        due_at,
        priority,
        not_before,
        deadline,
        retry_of,
        cancel_requested_at,
        past_attempts,
        recorded,
        progress,
        metadata,
        result,
    ) = row[:27]
    return Task(
        id=task_id,
        owner=owner,
        status=_STATUS_OF[status],
        executor=executor,
        model=model,
        metadata=metadata_from(metadata),
        timeout_seconds=timeout_seconds,
        max_attempts=max_attempts,
        priority=priority,
        not_before=not_before,
        deadline=deadline,
        retry_of=retry_of,
        rank=rank,
        due_at=due_at,
        created_at=created_at,
        attempt=attempt,
        failures=failures,
        crashes=crashes,
        started_at=started_at,
        cancel_requested_at=cancel_requested_at,
        completed_at=completed_at,
        result=result,
        usage=usage_from(usage),
        error=error_from(error),
        past_attempts=attempts_from(past_attempts),
        recorded=recorded,
        progress=progress,
    )
