"""The use cases of clients: submit a task, look at it, find it among others, end it, try again."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from msgspec import Struct, field

from domain.events import Done, Event, Output, events_of, lost_until, number_of_start
from domain.inference import Routes
from domain.instants import seconds_between
from domain.ports import (
    Mismatch,
    Payload,
    QueueView,
    SubmitAnswer,
    SubmitLimits,
    TaskCounts,
    TaskStore,
)
from domain.query import Page, TaskQuery
from domain.retention import RetentionPolicy
from domain.task import NO_METADATA, Idempotency, NewTask, Task, TaskStatus


class Caller(Struct, frozen=True):
    """Who asks. Tasks that are made belong to `name`; an admin sees those of everybody."""

    name: str
    is_admin: bool = False

    @property
    def sees(self) -> str | None:
        """The owner whose tasks are there for this caller; None: all of them are."""
        return None if self.is_admin else self.name


class Submission(Struct, frozen=True, kw_only=True):
    """What a client asks for. `input` and `options` are JSON text; None means the default.

    At most one of `delay_seconds` and `run_at` (an instant) is given; neither means now.
    """

    input: bytes
    options: bytes = b"{}"
    model: str | None = None
    metadata: Mapping[str, str] = field(default_factory=lambda: NO_METADATA)
    timeout_seconds: float | None = None
    max_attempts: int | None = None
    priority: int = 0
    delay_seconds: float | None = None
    run_at: int | None = None
    deadline_seconds: float | None = None
    idempotency: Idempotency | None = None


class Draining(Struct, frozen=True):
    """Nothing was stored: this process is stopping and takes no new tasks."""


class NotRetryable(Struct, frozen=True):
    """Nothing was stored: only a failed or cancelled task is tried again."""

    status: TaskStatus


class Log(Struct, frozen=True):
    """A part of a task's log. `is_over`: nothing will ever follow."""

    events: Sequence[Event]
    is_over: bool


class LogLost(Struct, frozen=True):
    """The log is not there from that place on: events up to number `until` are forgotten."""

    until: int


class SubmitDefaults(Struct, frozen=True):
    """What holds for a task that does not say otherwise; `timeout_seconds` is also the most.

    One step of priority is worth `priority_step_seconds` of waiting.
    """

    timeout_seconds: float
    max_attempts: int
    priority_step_seconds: float = 60.0


_TAKE_NONE: Final = SubmitLimits(max_pending=0, retention=RetentionPolicy(0, 0))
"""A submit with these stores nothing and removes nothing: it tells which keys are known."""


class TaskService:
    """Tasks, as clients see them. Remembers nothing but whether it still accepts."""

    def __init__(
        self,
        store: TaskStore,
        routes: Routes,
        limits: SubmitLimits,
        defaults: SubmitDefaults,
        new_id: Callable[[], str],
    ) -> None:
        self._store = store
        self._routes = routes
        self._new_id = new_id
        self._accepting = True
        self.limits = limits
        self.defaults = defaults

    async def submit(self, caller: Caller, asked: Submission) -> SubmitAnswer | Draining:
        """Store a new task. When it is accepted it is committed, and will run.

        Raises `StorageFull` and `StoreUnavailable`; then nothing was stored, or all of it.
        """
        if not self._accepting:
            return Draining()
        [answer] = await self._store.submit([self._new_task(caller, asked)], self.limits)
        return answer

    async def submit_batch(
        self, caller: Caller, asked: Sequence[Submission]
    ) -> list[SubmitAnswer] | Mismatch | Draining:
        """Store new tasks in one step, one answer each, in order. Raises as `submit`.

        `Mismatch`: one of their keys was used for something else before, so none is stored. Where
        that happens at this very moment, only the tasks whose keys are concerned are not.
        """
        if not self._accepting:
            return Draining()
        new_tasks = [self._new_task(caller, one) for one in asked]
        keyed = [new for new in new_tasks if new.idempotency is not None]
        if keyed and Mismatch() in await self._store.submit(keyed, _TAKE_NONE):
            return Mismatch()
        return await self._store.submit(new_tasks, self.limits)

    async def retry(
        self, caller: Caller, task_id: str
    ) -> SubmitAnswer | Draining | NotRetryable | None:
        """Submit once more what a failed or cancelled task asked for, as a new task of its owner.

        The old one stays as it is. Its delay is not repeated; its deadline counts anew. None as in
        `get`.
        """
        if not self._accepting:
            return Draining()
        task = await self._store.get(task_id, caller.sees)
        if task is None:
            return None
        if task.status not in {TaskStatus.FAILED, TaskStatus.CANCELLED}:
            return NotRetryable(task.status)
        payload = await self._store.payload(task_id, caller.sees)
        if payload is None:  # removed a moment ago
            return None
        [answer] = await self._store.submit([self._again(task, payload)], self.limits)
        return answer

    async def get(self, caller: Caller, task_id: str) -> Task | None:
        """The task, or None: unknown, malformed and somebody else's ids look all the same."""
        return await self._store.get(task_id, caller.sees)

    async def log(
        self, caller: Caller, task_id: str, after: int, limit: int
    ) -> Log | LogLost | None:
        """What happened to the task behind event number `after`, as far as it is known by now.

        About `limit` (from 1) events, but never none where there are more. None as in `get`.
        """
        page = await self._store.log(task_id, caller.sees, after, limit)
        if page is None:
            return None
        lost = lost_until(page.task)
        if after < lost:
            return LogLost(lost)
        events = events_of(page, after)
        return Log(events, page.task.done and (not events or isinstance(events[-1].what, Done)))

    async def partial_output(self, task: Task) -> str | None:
        """The output of a running attempt so far, as far as it is recorded; None: nothing is."""
        if task.status is not TaskStatus.RUNNING:
            return None
        recorded = task.recorded - task.recorded_before
        if not recorded:
            return None
        page = await self._store.log(task.id, None, number_of_start(task), recorded)
        told = [] if page is None else [event.what for event in page.recorded]
        outputs = [what.delta for what in told if isinstance(what, Output)]
        return "".join(outputs) or None

    async def find(self, query: TaskQuery) -> Page:
        """A page of tasks; `query.owner` is what `Caller.sees`."""
        return await self._store.find(query)

    async def queue_position(self, task: Task) -> int | None:
        """See `TaskStore.queue_position`."""
        if task.status is not TaskStatus.PENDING:
            return None
        return await self._store.queue_position(task)

    async def cancel(self, caller: Caller, task_id: str) -> Task | None:
        """Let nothing come of the task; a running one is stopped soon. None as in `get`."""
        return await self._store.request_cancel(task_id, caller.sees)

    async def delete(self, caller: Caller, task_id: str) -> bool:
        """Remove the task, and stop it where it runs; False where `get` gives None."""
        return await self._store.delete(task_id, caller.sees)

    async def queue(self, caller: Caller) -> QueueView:
        """What waits and what runs, of what this caller sees."""
        return await self._store.queue(caller.sees)

    async def counts(self) -> TaskCounts:
        """How many tasks there are, of all owners."""
        return await self._store.counts()

    async def backlog_seconds(self) -> float:
        """For how long the task has been waiting whose turn is next."""
        return await self._store.backlog_seconds()

    def expires_at(self, task: Task) -> int | None:
        """When retention may remove the task."""
        return self.limits.retention.expires_at(task.completed_at)

    def stop_accepting(self) -> None:
        """From now on every submit is answered `Draining`."""
        self._accepting = False

    def _new_task(self, caller: Caller, asked: Submission) -> NewTask:
        return NewTask(
            id=self._new_id(),
            owner=caller.name,
            executor=self._routes.executor_for(asked.model),
            model=asked.model,
            metadata=asked.metadata,
            timeout_seconds=asked.timeout_seconds or self.defaults.timeout_seconds,
            max_attempts=asked.max_attempts or self.defaults.max_attempts,
            input=asked.input,
            options=asked.options,
            priority=asked.priority,
            head_start_seconds=asked.priority * self.defaults.priority_step_seconds,
            delay_seconds=asked.delay_seconds,
            run_at=asked.run_at,
            deadline_seconds=asked.deadline_seconds,
            idempotency=asked.idempotency,
        )

    def _again(self, task: Task, payload: Payload) -> NewTask:
        return NewTask(
            id=self._new_id(),
            owner=task.owner,
            executor=self._routes.executor_for(task.model),
            model=task.model,
            metadata=task.metadata,
            timeout_seconds=task.timeout_seconds,
            max_attempts=task.max_attempts,
            input=payload.input,
            options=payload.options,
            priority=task.priority,
            head_start_seconds=task.priority * self.defaults.priority_step_seconds,
            deadline_seconds=_deadline_seconds(task),
            retry_of=task.id,
        )


def _deadline_seconds(task: Task) -> float | None:
    return None if task.deadline is None else seconds_between(task.created_at, task.deadline)
