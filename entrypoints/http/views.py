"""How the records of the domain look to clients."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from msgspec import UNSET, Raw

from domain.inference import NO_USAGE, Usage
from domain.ports import QueueLine, QueueView, UsageLine
from domain.query import Found, TaskQuery
from domain.service import Caller, TaskService
from domain.task import AttemptRecord, Task
from entrypoints.http.schemas import (
    AttemptView,
    ExecutorLoad,
    ListedTask,
    LiveTasks,
    ModelLoad,
    Queue,
    QueueLimits,
    TaskView,
)
from entrypoints.http.timestamps import timestamp, timestamp_or_none
from settings.schema import InferenceSettings


async def read_view(tasks: TaskService, caller: Caller, task_id: str) -> TaskView | None:
    """The task as last committed, as its clients see it; None as in `TaskService.get`."""
    task = await tasks.get(caller, task_id)
    return None if task is None else await view_of(tasks, task)


async def view_of(tasks: TaskService, task: Task) -> TaskView:
    """The task with its place in the queue."""
    if task.done:
        return _view(tasks, task, queue_position=None, partial_output=None)
    return _view(tasks, task, await tasks.queue_position(task), await tasks.partial_output(task))


def listed(tasks: TaskService, found: Found, query: TaskQuery) -> ListedTask:
    """A task of a page, with as much of it as was asked for."""
    view = _view(tasks, found.task, queue_position=None, partial_output=None)
    shown = {name: getattr(view, name) for name in _LISTED}
    shown["input"] = UNSET if found.input is None else Raw(found.input)
    if not query.with_result:
        shown["result"] = UNSET
    return ListedTask(**shown)


_LISTED: Final = [
    name for name in TaskView.__struct_fields__ if name in ListedTask.__struct_fields__
]
"""What a task shows alone and among others."""


def _view(
    tasks: TaskService, task: Task, queue_position: int | None, partial_output: str | None
) -> TaskView:
    # Names in place: from a mapping of them, the same takes four times as long.
    return TaskView(
        task_id=task.id,
        status=task.status,
        result=None if task.result is None else Raw(task.result),
        created_at=timestamp(task.created_at),
        started_at=timestamp_or_none(task.started_at),
        completed_at=timestamp_or_none(task.completed_at),
        error=task.error,
        done=task.done,
        executor=task.executor,
        model=task.model,
        attempt=task.attempt,
        failures=task.failures,
        max_attempts=task.max_attempts,
        timeout_seconds=task.timeout_seconds,
        usage=task.usage,
        metadata=task.metadata,
        priority=task.priority,
        not_before=timestamp_or_none(task.not_before),
        cancel_requested_at=timestamp_or_none(task.cancel_requested_at),
        expires_at=timestamp_or_none(tasks.expires_at(task)),
        retry_of=task.retry_of,
        attempts=[_attempt(attempt) for attempt in task.attempts],
        queue_position=queue_position,
        progress=task.progress,
        partial_output=partial_output,
    )


def _attempt(attempt: AttemptRecord) -> AttemptView:
    return AttemptView(
        number=attempt.number,
        executor=attempt.executor,
        started_at=timestamp(attempt.started_at),
        ended_at=timestamp_or_none(attempt.ended_at),
        outcome=attempt.outcome,
        error_code=attempt.error_code,
    )


def queue_view(queue: QueueView, inference: InferenceSettings) -> Queue:
    """The queue, counted by status, by executor and by model."""
    by_executor = _sums(queue.lines, lambda line: line.executor)
    by_model = _sums(queue.lines, lambda line: line.model or "")
    of_executor = _usage(queue.usage, lambda line: line.executor)
    of_model = _usage(queue.usage, lambda line: line.model or "")
    workers = queue.workers
    nobody = LiveTasks(0, 0)
    return Queue(
        by_status=LiveTasks(
            sum(line.pending for line in queue.lines), sum(line.running for line in queue.lines)
        ),
        by_executor={
            name: ExecutorLoad(
                pending=by_executor.get(name, nobody).pending,
                running=by_executor.get(name, nobody).running,
                workers=workers.get(name, 0),
                usage=of_executor.get(name, NO_USAGE),
            )
            for name in sorted(by_executor.keys() | workers.keys() | of_executor.keys())
        },
        by_model={
            name: ModelLoad(
                pending=by_model.get(name, nobody).pending,
                running=by_model.get(name, nobody).running,
                usage=of_model.get(name, NO_USAGE),
            )
            for name in sorted(by_model.keys() | of_model.keys())
        },
        oldest_pending_seconds=queue.oldest_pending_seconds,
        unserved=sorted(
            name for name, live in by_executor.items() if live.pending and not workers.get(name)
        ),
        limits=QueueLimits(inference.max_pending_tasks, inference.max_concurrent_tasks),
    )


def _usage(lines: Iterable[UsageLine], name_of: Callable[[UsageLine], str]) -> Mapping[str, Usage]:
    spent: dict[str, Usage] = {}
    for line in lines:
        spent[name_of(line)] = spent.get(name_of(line), NO_USAGE).plus(line.usage)
    return spent


def _sums(
    lines: Iterable[QueueLine], name_of: Callable[[QueueLine], str]
) -> Mapping[str, LiveTasks]:
    pending: Counter[str] = Counter()
    running: Counter[str] = Counter()
    for line in lines:
        pending[name_of(line)] += line.pending
        running[name_of(line)] += line.running
    return {name: LiveTasks(pending[name], running[name]) for name in sorted(pending)}
