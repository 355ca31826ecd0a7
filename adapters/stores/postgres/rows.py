"""Tasks and outcomes as the statements of this folder take them, and give them back."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, assert_never

from adapters.json_columns import (
    attempts_from,
    error_from,
    json_text,
    kind_of,
    metadata_from,
    output_from,
    recorded_from,
    recorded_json,
    usage_from,
)
from domain.events import Event, LogPage, number_of_recorded, progress_in
from domain.inference import NO_USAGE, Usage
from domain.ports import (
    Cancelled,
    Claim,
    Completed,
    Crashed,
    Entry,
    Failed,
    Fence,
    HandedBack,
    Outcome,
    QueueLine,
    QueueView,
    Retry,
    UsageLine,
)
from domain.query import ROWS_PER_PAGE, Found, Page, Position, TaskQuery
from domain.task import WORKER_LOST, AttemptOutcome, NewTask, Task, TaskStatus, worker_lost

_SMALLEST, _LARGEST = -(2**63), 2**63 - 1

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
            new.priority,
            microseconds(new.head_start_seconds),
            None if new.delay_seconds is None else microseconds(new.delay_seconds),
            new.run_at,
            None if new.deadline_seconds is None else microseconds(new.deadline_seconds),
            new.retry_of,
            None if new.idempotency is None else new.idempotency.key,
            None if new.idempotency is None else new.idempotency.fingerprint,
        )
        for new in new_tasks
    )


def appended(entries: Sequence[Entry]) -> Columns:
    """The columns of `append_events.sql`: five for the entries, four for the events."""
    told = [
        (
            entry.fence.task_id,
            entry.fence.attempt,
            entry.before,
            len(entry.events),
            progress_in(entry.events),
        )
        for entry in entries
    ]
    events = [
        (entry.fence.task_id, number, kind_of(what), recorded_json(what))
        for entry in entries
        for number, what in enumerate(
            entry.events, number_of_recorded(entry.fence.attempt, entry.before)
        )
    ]
    return [*_columns(told), *(_columns(events) or [[]] * 4)]


def columns_of(fences: Collection[Fence]) -> Columns:
    """The ids and the attempts of these, as two columns."""
    return [[fence.task_id for fence in fences], [fence.attempt for fence in fences]]


def settled(outcomes: Sequence[Outcome]) -> Columns:
    """The columns of `settle_attempts.sql`."""
    return _columns(
        (outcome.fence.task_id, outcome.fence.attempt, *_ending(outcome)) for outcome in outcomes
    )


def _columns(rows: Any) -> Columns:
    return [list(column) for column in zip(*rows, strict=True)]


def _ending(outcome: Outcome) -> tuple[Any, ...]:
    """Status, failures to add, delay (None keeps the turn), result, usage, error, history, crashes.

    The history, of two, is how the attempt goes down if the task becomes pending again. The crashes
    are how many there may be, counting this one; None: it is none.
    """
    match outcome:
        case Completed(result=result, usage=usage):
            return "completed", 0, None, result, json_text(usage), None, None, None, None
        case Failed(error=error):
            return "failed", 1, None, None, None, json_text(error), None, None, None
        case Retry(error=error, seconds=seconds):
            failed = AttemptOutcome.FAILED.value
            return "pending", 1, microseconds(seconds), None, None, None, failed, error.code, None
        case HandedBack():
            handed_back = AttemptOutcome.HANDED_BACK.value
            return "pending", 0, None, None, None, None, handed_back, None, None
        case Crashed(max_crashes=most):
            lost = json_text(worker_lost(most))
            return "pending", 0, None, None, None, lost, WORKER_LOST, WORKER_LOST, most
        case Cancelled():
            return "cancelled", 0, None, None, None, None, None, None, None
        case _:
            assert_never(outcome)


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
        priority=row["priority"],
        not_before=row["not_before"],
        deadline=row["deadline"],
        retry_of=row["retry_of"],
        rank=row["rank"],
        due_at=row["rank"] if row["due_at"] is None else row["due_at"],
        created_at=row["created_at"],
        attempt=row["attempt"],
        failures=row["failures"],
        crashes=row["crashes"],
        started_at=row["started_at"],
        cancel_requested_at=row["cancel_requested_at"],
        completed_at=row["completed_at"],
        result=row["result"],
        usage=usage_from(row["usage"]),
        error=error_from(row["error"]),
        past_attempts=attempts_from(row["past_attempts"]),
        recorded=row["recorded"],
        progress=row["progress"],
    )


def log_page_of(row: Mapping[str, Any], limit: int) -> LogPage:
    """The page of the row of `read_log.sql`, which gives one event more than asked for."""
    events = [Event(number, recorded_from(what)) for number, what in row["events"]]
    last = row["last_output"]
    last_output = None if last is None else output_from(last)
    return LogPage(task_of(row), events[:limit], len(events) <= limit, last_output)


def claim_of(row: Mapping[str, Any]) -> Claim:
    """The claim of a row of `claim_tasks.sql`."""
    return Claim(task_of(row), row["input"], row["options"])


def asked(query: TaskQuery) -> tuple[Any, ...]:
    """The values of `find_{order}.sql`."""
    edge = _LARGEST if query.newest_first else _SMALLEST
    start = query.start or Position(edge, edge)
    return (
        query.owner,
        start.created_at,
        start.number,
        _SMALLEST if query.created_after is None else query.created_after,
        _LARGEST if query.created_before is None else query.created_before,
        [status.value for status in query.statuses],
        query.executor,
        ROWS_PER_PAGE,
        query.limit + 1,
        query.model,
        query.with_result,
        query.with_input,
    )


def page_of(rows: Sequence[Mapping[str, Any]], query: TaskQuery) -> Page:
    """The page of the rows of `find_{order}.sql`: one more than asked for, where there is one."""
    found = [Found(task_of(row), row["input"]) for row in rows[: query.limit] if row["id"]]
    if len(rows) > query.limit:
        last = rows[query.limit - 1]
        return Page(found, Position(last["created_at"], last["number"]))
    is_end = rows[0]["looked_at"] < ROWS_PER_PAGE
    return Page(found, None if is_end else Position(*rows[0]["last"]))


def queue_view_of(
    lines: Sequence[Mapping[str, Any]],
    workers: Sequence[Mapping[str, Any]],
    usage: Sequence[Mapping[str, Any]],
) -> QueueView:
    """What the rows of `view_queue.sql`, `view_workers.sql` and `view_usage.sql` say."""
    oldest = [line["oldest"] for line in lines if line["oldest"] is not None]
    return QueueView(
        [QueueLine(row["executor"], row["model"], row["pending"], row["running"]) for row in lines],
        max(oldest) / 1_000_000 if oldest else None,
        {row["executor"]: row["workers"] for row in workers},
        [UsageLine(row["executor"], row["model"], _usage_of(row)) for row in usage],
    )


def _usage_of(row: Mapping[str, Any]) -> Usage:
    names = ("input_tokens", "output_tokens", "total_tokens")
    return NO_USAGE.plus(Usage(*(int(row[name]) for name in names)))
