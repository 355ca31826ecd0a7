"""The routes of tasks: from their submission to their end, alone, among others and in the queue."""

import asyncio
from hashlib import blake2b
from typing import Any, Final, assert_never

from litestar import Controller, Request, Router
from litestar.di import NamedDependency
from litestar.params import FromPath, SkipValidation
from litestar.routes import HTTPRoute
from litestar.status_codes import (
    HTTP_200_OK,
    HTTP_202_ACCEPTED,
    HTTP_204_NO_CONTENT,
    HTTP_304_NOT_MODIFIED,
)
from litestar.types import Scope
from msgspec.structs import replace

from domain.ports import Accepted, Mismatch, QueueFull, Replayed
from domain.service import Draining, NotRetryable, Submission, TaskService
from domain.task import Task, TaskStatus
from entrypoints.http.answers import Answer, Header
from entrypoints.http.backlog import Backlog
from entrypoints.http.batch import batch_view, read_batch
from entrypoints.http.body import read_json_text, until_disconnected
from entrypoints.http.cursors import cursor_of
from entrypoints.http.errors import (
    DRAINING,
    IDEMPOTENCY_MISMATCH,
    NOT_RETRYABLE,
    QUEUE_FULL,
    TASK_NOT_FOUND,
    problem,
)
from entrypoints.http.head import caller_of, has_already, idempotency_key, seconds_to_wait
from entrypoints.http.queries import read_after, read_query
from entrypoints.http.routes import delete, get, post
from entrypoints.http.schemas import TaskCreated, TaskList, TaskRetried, TaskView, encode
from entrypoints.http.streaming import Stream, Streams
from entrypoints.http.submission import read_submission
from entrypoints.http.views import listed, queue_view, read_view, view_of
from entrypoints.http.waiting import Waiting
from settings.schema import Settings

_REPLAYED: Final[Header] = (b"idempotency-replayed", b"true")
_TAG_BYTES: Final = 16


AnyRequest = Request[Any, Any, Any]
_Tasks = NamedDependency[SkipValidation[TaskService]]
_Backlog = NamedDependency[SkipValidation[Backlog]]
_Waiting = NamedDependency[SkipValidation[Waiting]]


class TaskController(Controller):
    """What clients do with tasks."""

    path = "/api/v1/task"

    def as_router(self) -> Router:
        """The routes as Litestar wants them, without its handlers of OPTIONS.

        It makes one for the first method of a path, and keeps it when others come. Without it, it
        makes one that knows them all.
        """
        router = super().as_router()
        for route in router.routes:
            if isinstance(route, HTTPRoute):
                handlers = route.route_handlers
                route.route_handlers = [one for one in handlers if one.http_methods != {"OPTIONS"}]
        return router

    @post("/inference", operation_id="createInferenceTask", status_code=HTTP_202_ACCEPTED)
    async def submit(
        self, request: AnyRequest, tasks: _Tasks, waiting: _Waiting, backlog: _Backlog
    ) -> Answer:
        """Accept a task. It is committed before the answer is sent."""
        key, seconds = idempotency_key(request.scope), seconds_to_wait(request.scope)
        most = request.route_handler.resolve_request_max_body_size() or 0
        text = await read_json_text(request.scope, request.receive, most)
        asked = await read_submission(text, tasks.defaults.timeout_seconds, key)
        answer = await tasks.submit(caller_of(request.scope), asked)
        if not isinstance(answer, Accepted | Replayed):
            return await _refused(answer, request.scope, backlog)
        task = answer.task
        headers = await _headers_of_new(task, backlog)
        if isinstance(answer, Replayed):
            headers.append(_REPLAYED)
        if seconds is None:
            return _created(task.id, task.status, headers)
        headers.append(_applied(seconds))
        view = await _look(request, tasks, waiting, task.id, seconds)
        if view is not None and view.done:
            return Answer(HTTP_200_OK, encode(view), headers)
        return _created(task.id, task.status if view is None else view.status, headers)

    @post("/batch", operation_id="createInferenceTasks", status_code=HTTP_202_ACCEPTED)
    async def submit_batch(
        self,
        request: AnyRequest,
        tasks: _Tasks,
        backlog: _Backlog,
        storing: NamedDependency[SkipValidation[asyncio.Lock]],
    ) -> Answer:
        """Accept many tasks, all of them in one step; a bad one spoils only itself.

        Who holds `storing` may store a batch: one at a time, so that no claim waits behind many.
        """
        key = idempotency_key(request.scope)
        most = request.route_handler.resolve_request_max_body_size() or 0
        text = await read_json_text(request.scope, request.receive, most)
        asked = await read_batch(text, tasks.defaults.timeout_seconds, key)
        good = [one for one in asked if isinstance(one, Submission)]
        async with storing:
            answers = await tasks.submit_batch(caller_of(request.scope), good)
        if isinstance(answers, Mismatch | Draining):
            return await _refused(answers, request.scope, backlog)
        headers: list[Header] = [(b"retry-after", b"%d" % await backlog.seconds())]
        if any(isinstance(answer, Replayed) for answer in answers):
            headers.append(_REPLAYED)
        return Answer(HTTP_202_ACCEPTED, encode(batch_view(asked, answers)), headers)

    @get("/{task_id:str}", operation_id="getTask")
    async def get_task(
        self, request: AnyRequest, task_id: FromPath[str], tasks: _Tasks, waiting: _Waiting
    ) -> Answer:
        """The task as last committed, at once or when it has ended."""
        seconds = seconds_to_wait(request.scope)
        view = await _look(request, tasks, waiting, task_id, seconds)
        return _shown(request.scope, view, [] if seconds is None else [_applied(seconds)])

    @get("/{task_id:str}/events", operation_id="streamTaskEvents")
    async def stream_events(
        self,
        request: AnyRequest,
        task_id: FromPath[str],
        streams: NamedDependency[SkipValidation[Streams]],
    ) -> Stream:
        """What happened to the task, and what happens to it, to its end."""
        headers = request.scope["state"]["headers"]
        after = read_after(request.scope["query_string"], headers.get(b"last-event-id"))
        return streams.stream(caller_of(request.scope), task_id, after)

    @get("/", operation_id="listTasks")
    async def list_tasks(self, request: AnyRequest, tasks: _Tasks) -> Answer:
        """A page of tasks."""
        query = read_query(request.scope["query_string"], caller_of(request.scope).sees)
        page = await tasks.find(query)
        view = TaskList(
            data=[listed(tasks, found, query) for found in page.found],
            has_more=page.next is not None,
            next_cursor=None if page.next is None else cursor_of(page.next, query),
        )
        return Answer(HTTP_200_OK, encode(view))

    @post("/{task_id:str}/cancel", operation_id="cancelTask", status_code=HTTP_200_OK)
    async def cancel(self, request: AnyRequest, task_id: FromPath[str], tasks: _Tasks) -> Answer:
        """Let nothing come of a task."""
        task = await tasks.cancel(caller_of(request.scope), task_id)
        if task is None:
            return problem(TASK_NOT_FOUND, request.scope)
        return Answer(HTTP_200_OK, encode(await view_of(tasks, task)))

    @post("/{task_id:str}/retry", operation_id="retryTask", status_code=HTTP_202_ACCEPTED)
    async def retry(
        self, request: AnyRequest, task_id: FromPath[str], tasks: _Tasks, backlog: _Backlog
    ) -> Answer:
        """Accept once more what a failed or cancelled task asked for."""
        answer = await tasks.retry(caller_of(request.scope), task_id)
        if not isinstance(answer, Accepted | Replayed):
            return await _refused(answer, request.scope, backlog)
        headers = await _headers_of_new(answer.task, backlog)
        view = TaskRetried(answer.task.id, answer.task.status, retry_of=task_id)
        return Answer(HTTP_202_ACCEPTED, encode(view), headers)

    @delete("/{task_id:str}", operation_id="deleteTask", status_code=HTTP_200_OK)
    async def delete_task(
        self, request: AnyRequest, task_id: FromPath[str], tasks: _Tasks
    ) -> Answer:
        """Remove a task, and stop it where it runs."""
        if not await tasks.delete(caller_of(request.scope), task_id):
            return problem(TASK_NOT_FOUND, request.scope)
        return Answer(HTTP_204_NO_CONTENT, b"")


class QueueController(Controller):
    """What waits, and what runs."""

    @get("/api/v1/queue", operation_id="getQueue")
    async def queue(
        self,
        request: AnyRequest,
        tasks: _Tasks,
        settings: NamedDependency[SkipValidation[Settings]],
    ) -> Answer:
        """The live tasks that the caller sees, counted."""
        queue = await tasks.queue(caller_of(request.scope))
        return Answer(HTTP_200_OK, encode(queue_view(queue, settings.inference)))


def _created(task_id: str, status: TaskStatus, headers: list[Header]) -> Answer:
    return Answer(HTTP_202_ACCEPTED, encode(TaskCreated(task_id, status)), headers)


def _shown(scope: Scope, view: TaskView | None, headers: list[Header]) -> Answer:
    """The task, or that it is the one that the client has already."""
    if view is None:
        return problem(TASK_NOT_FOUND, scope)
    body = encode(view)
    tag = b'"%s"' % blake2b(body, digest_size=_TAG_BYTES).hexdigest().encode()
    headers.append((b"etag", tag))
    if has_already(scope, tag):
        return Answer(HTTP_304_NOT_MODIFIED, b"", headers)
    return Answer(HTTP_200_OK, body, headers)


async def _headers_of_new(task: Task, backlog: Backlog) -> list[Header]:
    """Where the new task is, and when to look at it."""
    seconds = await backlog.seconds()
    return [
        (b"location", b"/api/v1/task/" + task.id.encode()),
        (b"retry-after", b"%d" % seconds),
    ]


async def _refused(
    answer: QueueFull | Mismatch | Draining | NotRetryable | None, scope: Scope, backlog: Backlog
) -> Answer:
    """Why no task was made."""
    match answer:
        case QueueFull():
            return problem(replace(QUEUE_FULL, retry_after=await backlog.seconds()), scope)
        case Draining():
            return problem(replace(DRAINING, retry_after=await backlog.seconds()), scope)
        case Mismatch():
            return problem(IDEMPOTENCY_MISMATCH, scope)
        case NotRetryable(status):
            return problem(NOT_RETRYABLE, scope, detail=f"This task is {status}.")
        case None:
            return problem(TASK_NOT_FOUND, scope)
        case other:
            assert_never(other)


# --- long polls --------------------------------------------------------------------------------


def _applied(seconds: int) -> Header:
    return (b"preference-applied", b"wait=%d" % seconds)


async def _look(
    request: AnyRequest, tasks: TaskService, waiting: Waiting, task_id: str, seconds: int | None
) -> TaskView | None:
    """The task, at once; or when it ends, or its client has waited long enough."""
    caller = caller_of(request.scope)
    if not seconds:
        return await read_view(tasks, caller, task_id)
    request.scope["state"]["may_take"] += seconds
    gone = asyncio.ensure_future(until_disconnected(request.receive))
    try:
        return await waiting.until_ended(caller, task_id, seconds, gone)
    finally:
        gone.cancel()
