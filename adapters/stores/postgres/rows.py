"""Tasks and outcomes as the statements of this folder take them, and give them back."""

from collections.abc import Mapping, Sequence
from typing import Any

from adapters.json_columns import error_from, json_text, metadata_from, usage_from
from domain.ports import Claim, Completed, Failed, HandedBack, Outcome, Retry
from domain.task import NewTask, Task, TaskStatus

Columns = list[list[Any]]


def microseconds(seconds: float) -> int:
    """A duration as the statements take it."""
    return round(seconds * 1_000_000)


def submitted(new_tasks: Sequence[NewTask]) -> Columns:
    """The columns of `submit_tasks.sql`."""
    return _columns(
        (
            new.id,
            new.owner,
            new.executor,
            new.model,
            json_text(new.metadata),
            new.timeout_seconds,
            new.max_attempts,
            new.input,
            new.options,
        )
        for new in new_tasks
    )


def settled(outcomes: Sequence[Outcome]) -> Columns:
    """The columns of `settle_attempts.sql`."""
    return _columns(
        (outcome.fence.task_id, outcome.fence.attempt, *_ending(outcome)) for outcome in outcomes
    )


def _columns(rows: Any) -> Columns:
    return [list(column) for column in zip(*rows, strict=True)]


def _ending(outcome: Outcome) -> tuple[Any, ...]:
    """Status, failures to add, delay (None keeps the turn), result, usage, error."""
    match outcome:
        case Completed(result=result, usage=usage):
            return TaskStatus.COMPLETED.value, 0, None, result, json_text(usage), None
        case Failed(error=error):
            return TaskStatus.FAILED.value, 1, None, None, None, json_text(error)
        case Retry(seconds=seconds):
            return TaskStatus.PENDING.value, 1, microseconds(seconds), None, None, None
        case HandedBack():
            return TaskStatus.PENDING.value, 0, None, None, None, None


def task_of(row: Mapping[str, Any]) -> Task:
    """The task of a row of `get_task.sql` or `claim_tasks.sql`."""
    return Task(
        id=row["id"],
        owner=row["owner"],
        status=TaskStatus(row["status"]),
        executor=row["executor"],
        model=row["model"],
        metadata=metadata_from(row["metadata"]),
        timeout_seconds=row["timeout_seconds"],
        max_attempts=row["max_attempts"],
        rank=row["rank"],
        created_at=row["created_at"],
        attempt=row["attempt"],
        failures=row["failures"],
        crashes=row["crashes"],
        started_at=row["started_at"],
        completed_at=row["completed_at"],
        result=row["result"],
        usage=usage_from(row["usage"]),
        error=error_from(row["error"]),
    )


def claim_of(row: Mapping[str, Any]) -> Claim:
    """The claim of a row of `claim_tasks.sql`."""
    return Claim(task_of(row), row["input"], row["options"])
