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

from entrypoints.http.errors import (
    BODY_REFUSALS,
    DRAINING,
    EVERYWHERE,
    INVALID_REQUEST,
    NOT_HEALTHY_STATUS,
    QUEUE_FULL,
    STORAGE_FULL,
    STORE_UNAVAILABLE,
    TASK_NOT_FOUND,
    Refusal,
)
from entrypoints.http.schemas import (
    VERSION,
    Fault,
    Health,
    Liveness,
    Problem,
    ReadinessView,
    TaskCreated,
    TaskResult,
    TaskSubmission,
    TaskView,
)
from settings.schema import Settings

_Json = dict[str, Any]

_ID: Final = "3f2d8a9c-6e5b-4d1c-9a7f-8b3e5a4c2d6e"
_SUBMISSION: Final[_Json] = {
    "input": "这是一个测试输入",
    "options": {"model": "gpt-3.5-turbo", "temperature": 0.7},
}
_CREATED: Final[_Json] = {"task_id": _ID, "status": "pending"}
_TASK: Final[_Json] = {
    "task_id": _ID,
    "status": "completed",
    "result": {"output": "Processed input: 这是一个测试输入"},
    "created_at": "2023-10-24T08:15:30.123456Z",
    "started_at": "2023-10-24T08:15:30.234567Z",
    "completed_at": "2023-10-24T08:15:32.345678Z",
    "error": None,
    "done": True,
    "executor": "echo",
    "model": "gpt-3.5-turbo",
    "attempt": 1,
    "failures": 0,
    "max_attempts": 3,
    "timeout_seconds": 300.0,
    "usage": None,
    "metadata": {},
}
_RETRY_AFTER: Final[_Json] = {
    "description": "Seconds after which to try again, or to look again.",
    "schema": {"type": "integer", "minimum": 1, "maximum": 60},
}
_REQUEST_ID: Final[_Json] = {
    "description": "The request's id, as it stands in the log; the client's own where it sent one.",
    "schema": {"type": "string"},
}


def openapi_document(settings: Settings) -> bytes:
    """The document as JSON text, the same for the same settings."""
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": settings.app_name,
            "version": VERSION,
            "description": "Accepts inference tasks, runs them asynchronously, answers for them.",
        },
        "servers": [{"url": "/"}],
        "paths": _paths(settings.app_name),
        "components": {"schemas": _schemas(settings.inference.timeout_seconds)},
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def _paths(app_name: str) -> _Json:
    health = {
        "status": "healthy",
        "version": VERSION,
        "tasks_count": 5,
        "app_name": app_name,
    }
    return {
        "/api/v1/task/inference": {
            "post": _operation(
                "createInferenceTask",
                "Create an inference task",
                {"202": _answer("Accepted", "TaskCreated", _CREATED, _CREATED_HEADERS)},
                refusals=(*BODY_REFUSALS, QUEUE_FULL, DRAINING, STORE_UNAVAILABLE, STORAGE_FULL),
                requestBody={
                    "required": True,
                    "content": _json_content("TaskSubmission", _SUBMISSION),
                },
            )
        },
        "/api/v1/task/{task_id}": {
            "get": _operation(
                "getTask",
                "A task's status and result",
                {"200": _answer("The task", "TaskView", _TASK)},
                refusals=(TASK_NOT_FOUND, STORE_UNAVAILABLE),
                parameters=[_TASK_ID],
            )
        },
        "/api/v1/health": {
            "get": _operation(
                "getHealth",
                "Whether the service can do its work",
                _either("Health", health, health | {"status": "unhealthy", "tasks_count": None}),
            )
        },
        "/livez": {
            "get": _operation(
                "getLiveness",
                "Whether the process answers",
                {"200": _answer("Alive", "Liveness", {"status": "alive"})},
            )
        },
        "/readyz": {
            "get": _operation(
                "getReadiness",
                "Whether to send work here",
                _either("ReadinessView", _READY, _NOT_READY),
            )
        },
    }


_TASK_ID: Final[_Json] = {
    "name": "task_id",
    "in": "path",
    "required": True,
    "description": "What `createInferenceTask` answered; any other string is unknown.",
    "schema": {"type": "string", "pattern": "^[0-9a-f-]{36}$"},
    "example": _ID,
}
_CREATED_HEADERS: Final[_Json] = {
    "Location": {"description": "Where the task is.", "schema": {"type": "string"}},
    "Retry-After": _RETRY_AFTER,
}
_READY: Final[_Json] = {"status": "ready", "faults": {}}
_NOT_READY: Final[_Json] = {"status": "not_ready", "faults": {"store": "it does not answer"}}


def _operation(
    operation_id: str,
    summary: str,
    answers: _Json,
    refusals: Iterable[Refusal] = (),
    **more: Any,
) -> _Json:
    responses = _problems((*refusals, *EVERYWHERE)) | answers
    tag = "tasks" if "Task" in operation_id else "service"
    operation = {"operationId": operation_id, "summary": summary, "tags": [tag], **more}
    return operation | {"responses": dict(sorted(responses.items()))}


def _answer(
    description: str,
    schema: str,
    example: _Json,
    headers: Mapping[str, _Json] = MappingProxyType({}),
) -> _Json:
    return {
        "description": description,
        "headers": {**headers, "X-Request-Id": _REQUEST_ID},
        "content": _json_content(schema, example),
    }


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
    examples = {row.code: {"value": to_builtins(_example(row))} for row in rows}
    return {
        "description": ", ".join(f"`{row.code}`" for row in rows),
        "headers": headers,
        "content": {
            "application/problem+json": {"schema": _reference("Problem"), "examples": examples}
        },
    }


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
    TaskCreated,
    TaskView,
    TaskResult,
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
    # In a TaskView it is JSON text already, of which msgspec knows no shape.
    schemas["TaskView"]["properties"]["result"]["anyOf"][0] = _reference("TaskResult")
    return dict(sorted(schemas.items()))
