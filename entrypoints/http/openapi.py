"""The OpenAPI 3.1 document of the API.

The shapes come from the Structs, the rows of the error table from `errors`; what ties them to
routes is written here. Litestar's generator is not used: it knows nothing of answers that are
encoded already, of headers, or of problem documents. A test holds the routes and this page
together.
"""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from inspect import cleandoc
from itertools import groupby
from types import MappingProxyType
from typing import Any, Final

import msgspec
from msgspec import to_builtins

from entrypoints.http import examples
from entrypoints.http.errors import (
    BODY_REFUSALS,
    DRAINING,
    EVENT_OFFSET_LOST,
    EVERYWHERE,
    IDEMPOTENCY_MISMATCH,
    INVALID_REQUEST,
    NOT_HEALTHY_STATUS,
    NOT_RETRYABLE,
    QUEUE_FULL,
    RATE_LIMITED,
    STORAGE_FULL,
    STORE_UNAVAILABLE,
    TASK_NOT_FOUND,
    UNAUTHORIZED,
    Refusal,
)
from entrypoints.http.schemas import (
    AFTER,
    EVENTS,
    IDEMPOTENCY_KEY,
    LAST_EVENT_ID,
    LIST_CHOICES,
    LIST_PARAMETERS,
    VERSION,
    BatchCreated,
    BatchSubmission,
    EventNumber,
    Fault,
    Health,
    Liveness,
    Problem,
    Queue,
    ReadinessView,
    TaskCreated,
    TaskList,
    TaskNotCreated,
    TaskResult,
    TaskRetried,
    TaskSubmission,
    TaskView,
)
from settings.schema import Settings

_Json = dict[str, Any]


def openapi_document(settings: Settings) -> bytes:
    """The document as JSON text, the same for the same settings."""
    nobody: _Json = {}
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": settings.app_name,
            "version": VERSION,
            "description": "Accepts inference tasks, runs them asynchronously, answers for them.",
        },
        "servers": [{"url": "/"}],
        "security": [*_KEYS, *([] if settings.security.api_keys else [nobody])],
        "paths": _paths_of_tasks() | _paths_of_service(settings.app_name),
        "components": {
            "schemas": _schemas(settings.inference.timeout_seconds),
            "securitySchemes": _KEY_SCHEMES,
        },
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


_KEYS: Final[list[_Json]] = [{"bearer": []}, {"apiKey": []}]
_KEY_SCHEMES: Final[_Json] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


# --- the routes --------------------------------------------------------------------------------


def _paths_of_tasks() -> _Json:
    return {
        "/api/v1/task/inference": {"post": _create()},
        "/api/v1/task/batch": {"post": _create_batch()},
        "/api/v1/task": {"get": _list()},
        "/api/v1/task/{task_id}": {"get": _get(), "delete": _delete()},
        "/api/v1/task/{task_id}/events": {"get": _stream()},
        "/api/v1/task/{task_id}/cancel": {"post": _cancel()},
        "/api/v1/task/{task_id}/retry": {"post": _retry()},
        "/api/v1/queue": {"get": _queue()},
    }


def _create() -> _Json:
    accepted = _NEW | {"Idempotency-Replayed": _REPLAYED, "Preference-Applied": _APPLIED}
    return _of_tasks(
        "createInferenceTask",
        "Create an inference task",
        {
            "200": _answer("The task has ended", "TaskView", examples.TASK, accepted),
            "202": _answer("Accepted", "TaskCreated", examples.CREATED, accepted),
        },
        (*BODY_REFUSALS, IDEMPOTENCY_MISMATCH, *_NO_ROOM),
        parameters=[_IDEMPOTENCY_KEY, _PREFER],
        requestBody={
            "required": True,
            "content": _json_content("TaskSubmission", examples.SUBMISSION),
        },
    )


def _create_batch() -> _Json:
    headers = {"Retry-After": _RETRY_AFTER, "Idempotency-Replayed": _REPLAYED}
    return _of_tasks(
        "createInferenceTasks",
        "Create many inference tasks in one step; a bad one spoils only itself",
        {"202": _answer("What became of each", "BatchCreated", examples.BATCH_CREATED, headers)},
        (*BODY_REFUSALS, IDEMPOTENCY_MISMATCH, *_NO_ROOM),
        parameters=[_IDEMPOTENCY_KEY],
        requestBody={
            "required": True,
            "content": _json_content("BatchSubmission", examples.BATCH),
        },
    )


def _list() -> _Json:
    return _of_tasks(
        "listTasks",
        "The tasks that the caller sees, newest first",
        {"200": _answer("A page of tasks", "TaskList", examples.TASKS)},
        (INVALID_REQUEST,),
        parameters=[
            {
                **_query("status", "In one of these states."),
                "schema": {"type": "array", "items": _reference("TaskStatus")},
            },
            _choice("order", "By creation; `desc` unless told otherwise."),
            _choice("include", "What is left out else."),
            *[_typed(name, shape) for name, shape in LIST_PARAMETERS.items()],
        ],
    )


def _get() -> _Json:
    headers = {"ETag": _TAG, "Preference-Applied": _APPLIED}
    return _of_tasks(
        "getTask",
        "A task's status and result",
        {
            "200": _answer("The task", "TaskView", examples.TASK, headers),
            "304": _bodiless("It is what the client has already", headers),
        },
        (TASK_NOT_FOUND,),
        parameters=[_TASK_ID, _PREFER, _IF_NONE_MATCH],
    )


def _stream() -> _Json:
    return _of_tasks(
        "streamTaskEvents",
        "What happened to a task, and what happens to it, to its end",
        {"200": _bodiless(_STREAMED) | {"content": _event_stream()}},
        (TASK_NOT_FOUND, EVENT_OFFSET_LOST, INVALID_REQUEST),
        parameters=[_TASK_ID, _AFTER, _LAST_EVENT_ID],
    )


def _delete() -> _Json:
    return _of_tasks(
        "deleteTask",
        "Remove a task; a live one is cancelled first",
        {"204": _bodiless("It is gone")},
        (TASK_NOT_FOUND,),
        parameters=[_TASK_ID],
    )


def _cancel() -> _Json:
    return _of_tasks(
        "cancelTask",
        "Let nothing come of a task; one that has ended stays as it is",
        {"200": _answer("The task", "TaskView", examples.CANCELLED)},
        (TASK_NOT_FOUND,),
        parameters=[_TASK_ID],
    )


def _retry() -> _Json:
    return _of_tasks(
        "retryTask",
        "Create a task that asks for what a failed or cancelled one did",
        {"202": _answer("Accepted", "TaskRetried", examples.RETRIED, _NEW)},
        (TASK_NOT_FOUND, NOT_RETRYABLE, *_NO_ROOM),
        parameters=[_TASK_ID],
    )


def _queue() -> _Json:
    answer = _answer("The live tasks that the caller sees", "Queue", examples.QUEUE)
    return _of_tasks("getQueue", "What waits and what runs", {"200": answer})


def _paths_of_service(app_name: str) -> _Json:
    health = examples.health(app_name)
    unhealthy = health | {"status": "unhealthy", "tasks_count": None}
    alive = {"200": _answer("Alive", "Liveness", examples.ALIVE)}
    return {
        "/api/v1/health": {
            "get": _of_service(
                "getHealth",
                "Whether the service can do its work",
                _either("Health", health, unhealthy),
            )
        },
        "/livez": {"get": _of_service("getLiveness", "Whether the process answers", alive)},
        "/readyz": {
            "get": _of_service(
                "getReadiness",
                "Whether to send work here",
                _either("ReadinessView", examples.READY, examples.NOT_READY),
            )
        },
    }


def _of_tasks(
    operation_id: str,
    summary: str,
    answers: _Json,
    refusals: Iterable[Refusal] = (),
    **more: Any,
) -> _Json:
    refusals = (*refusals, UNAUTHORIZED, RATE_LIMITED, STORE_UNAVAILABLE)
    head = {"operationId": operation_id, "summary": summary, "tags": ["tasks"]}
    return head | more | _responses(answers, refusals)


def _of_service(operation_id: str, summary: str, answers: _Json) -> _Json:
    """A route that asks for no key."""
    head = {"operationId": operation_id, "summary": summary, "tags": ["service"], "security": []}
    return head | _responses(answers, ())


def _responses(answers: _Json, refusals: Iterable[Refusal]) -> _Json:
    responses = _problems((*refusals, *EVERYWHERE)) | answers
    return {"responses": dict(sorted(responses.items()))}


_NO_ROOM: Final = (QUEUE_FULL, DRAINING, STORAGE_FULL)


# --- what is sent beside a body ----------------------------------------------------------------

_TASK_ID: Final[_Json] = {
    "name": "task_id",
    "in": "path",
    "required": True,
    "description": "What `createInferenceTask` answered; any other string is unknown.",
    "schema": {"type": "string", "pattern": "^[0-9a-f-]{36}$"},
    "example": examples.TASK_ID,
}
_IDEMPOTENCY_KEY: Final[_Json] = {
    "name": IDEMPOTENCY_KEY,
    "in": "header",
    "description": "With the same key and the same body, the answer tells of the same task.",
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
    "example": "3c5d9f0e-order-17",
}
_PREFER: Final[_Json] = {
    "name": "Prefer",
    "in": "header",
    "description": "`wait=N`: answer when the task has ended, or after N seconds (60 at most).",
    "schema": {"type": "string"},
    "example": "wait=5",
}
_IF_NONE_MATCH: Final[_Json] = {
    "name": "If-None-Match",
    "in": "header",
    "description": "The `ETag` of an answer that the client still has.",
    "schema": {"type": "string"},
    "example": '"0f343b0931126a20f133d67c2b018a3b"',
}


def _query(name: str, description: str) -> _Json:
    return {"name": name, "in": "query", "description": description}


def _choice(name: str, description: str) -> _Json:
    schema = {"type": "string", "enum": LIST_CHOICES[name]}
    return _query(name, description) | {"schema": schema}


def _typed(name: str, shape: Any) -> _Json:
    schema = msgspec.json.schema(shape)
    return _query(name, schema.pop("description")) | {"schema": schema}


_AFTER: Final[_Json] = {
    **_query(AFTER, "Begin behind the event of this number; it wins over the header."),
    "schema": msgspec.json.schema(EventNumber),
}
_LAST_EVENT_ID: Final[_Json] = {
    "name": LAST_EVENT_ID,
    "in": "header",
    "description": "The number of the last event that the client has.",
    "schema": msgspec.json.schema(EventNumber),
}


# --- what is answered --------------------------------------------------------------------------

_RETRY_AFTER: Final[_Json] = {
    "description": "Seconds after which to try again, or to look again.",
    "schema": {"type": "integer", "minimum": 1, "maximum": 60},
}
_REQUEST_ID: Final[_Json] = {
    "description": "The request's id, as it stands in the log; the client's own where it sent one.",
    "schema": {"type": "string"},
}
_NEW: Final[_Json] = {
    "Location": {"description": "Where the task is.", "schema": {"type": "string"}},
    "Retry-After": _RETRY_AFTER,
}
_REPLAYED: Final[_Json] = {
    "description": "There when the task was created before, under the same key.",
    "schema": {"type": "string", "enum": ["true"]},
}
_APPLIED: Final[_Json] = {
    "description": "There when the answer was waited for.",
    "schema": {"type": "string", "pattern": "^wait=[0-9]+$"},
}
_TAG: Final[_Json] = {
    "description": "Stands for this answer, byte for byte.",
    "schema": {"type": "string"},
}
_NO_HEADERS: Final[Mapping[str, _Json]] = MappingProxyType({})


def _answer(
    description: str, schema: str, example: _Json, headers: Mapping[str, _Json] = _NO_HEADERS
) -> _Json:
    return _bodiless(description, headers) | {"content": _json_content(schema, example)}


def _bodiless(description: str, headers: Mapping[str, _Json] = _NO_HEADERS) -> _Json:
    return {"description": description, "headers": {**headers, "X-Request-Id": _REQUEST_ID}}


def _either(schema: str, good: _Json, bad: _Json) -> _Json:
    """The answers of a route that says with its status, too, how things are."""
    return {
        "200": _answer("It can", schema, good),
        str(NOT_HEALTHY_STATUS): _answer("It cannot", schema, bad),
    }


def _problems(refusals: Iterable[Refusal]) -> _Json:
    """The refusals by status, each with an example."""
    in_order = sorted(refusals, key=lambda refusal: (refusal.status, refusal.code))
    return {
        str(status): _problem(list(rows))
        for status, rows in groupby(in_order, key=lambda refusal: refusal.status)
    }


def _problem(rows: list[Refusal]) -> _Json:
    headers = {"X-Request-Id": _REQUEST_ID}
    if any(row.retry_after for row in rows):
        headers["Retry-After"] = _RETRY_AFTER
    for row in rows:
        headers.update({name.decode().title(): _fixed(value) for name, value in row.headers})
    examples = {row.code: {"value": to_builtins(_example(row))} for row in rows}
    return {
        "description": ", ".join(f"`{row.code}`" for row in rows),
        "headers": headers,
        "content": {
            "application/problem+json": {"schema": _reference("Problem"), "examples": examples}
        },
    }


_STREAMED: Final = (
    "Events numbered from 1 without gaps, until the task has ended (`done` is the last), and"
    " comments meanwhile. A client whose stream ends before that goes on behind its last number."
)


def _event_stream() -> _Json:
    items = {"oneOf": [_event(kind, shape) for kind, shape in EVENTS.items()]}
    schema = {
        "type": "string",
        "contentMediaType": "text/event-stream",
        "contentSchema": {"type": "array", "items": items},
    }
    return {"text/event-stream": {"schema": schema, "example": examples.EVENT_STREAM}}


def _event(kind: str, shape: type) -> _Json:
    """What a message of a stream holds."""
    fields = {
        "id": {"type": "integer", "minimum": 1},
        "event": {"type": "string", "enum": [kind]},
        "data": _reference(shape.__name__),
    }
    return {"type": "object", "properties": fields, "required": list(fields)}


def _fixed(value: bytes) -> _Json:
    return {"schema": {"type": "string", "enum": [value.decode()]}}


def _example(row: Refusal) -> Problem:
    return Problem(
        type="about:blank",
        title=HTTPStatus(row.status).phrase,
        status=row.status,
        detail=row.detail,
        instance="/api/v1/task/inference",
        code=row.code,
        request_id="8a1c6f2e9d3b4075-42",
        errors=[Fault("/max_attempts", "Expected `int` <= 10")] if row is INVALID_REQUEST else [],
    )


def _json_content(schema: str, example: _Json) -> _Json:
    return {"application/json": {"schema": _reference(schema), "example": example}}


def _reference(schema: str) -> _Json:
    return {"$ref": f"#/components/schemas/{schema}"}


_SHAPES: Final = (
    TaskSubmission,
    BatchSubmission,
    BatchCreated,
    TaskNotCreated,
    TaskCreated,
    TaskRetried,
    TaskView,
    TaskResult,
    TaskList,
    *EVENTS.values(),
    Queue,
    Health,
    Liveness,
    ReadinessView,
    Problem,
)


def _schemas(longest_timeout_seconds: float) -> _Json:
    _, schemas = msgspec.json.schema_components(_SHAPES, ref_template="#/components/schemas/{name}")
    for schema in schemas.values():
        schema["description"] = cleandoc(schema["description"])
        for shape in schema.get("properties", {}).values():
            shape.pop("default", None)
    fields = schemas["TaskSubmission"]["properties"]
    fields["timeout_seconds"]["anyOf"][0]["maximum"] = float(longest_timeout_seconds)
    fields["max_attempts"]["anyOf"][0] = {"type": "integer", "minimum": 1, "maximum": 10}
    fields["priority"]["anyOf"][0] = {"type": "integer", "minimum": -10, "maximum": 10}
    schemas["BatchCreated"]["properties"]["data"]["items"] = {
        "anyOf": [_reference("TaskCreated"), _reference("TaskNotCreated")]
    }
    # Of what is JSON text already, msgspec knows no shape.
    schemas["ListedTask"]["properties"]["input"] = fields["input"]
    schemas["TaskView"]["properties"]["result"]["anyOf"][0] = _reference("TaskResult")
    schemas["ListedTask"]["properties"]["result"]["anyOf"][0] = _reference("TaskResult")
    return dict(sorted(schemas.items()))
