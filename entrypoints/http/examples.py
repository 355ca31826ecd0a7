"""One of each body, as the OpenAPI document shows it."""

import json
from typing import Any, Final

from entrypoints.http.schemas import VERSION

_Json = dict[str, Any]

TASK_ID: Final = "3f2d8a9c-6e5b-4d1c-9a7f-8b3e5a4c2d6e"
NEW_TASK_ID: Final = "7b1e4c2a-9d3f-4e8b-8c6a-1f2e3d4c5b6a"

SUBMISSION: Final[_Json] = {
    "input": "这是一个测试输入",
    "options": {"model": "gpt-3.5-turbo", "temperature": 0.7},
}
CREATED: Final[_Json] = {"task_id": TASK_ID, "status": "pending"}
BATCH: Final[_Json] = {"tasks": [SUBMISSION, {"input": "x", "priority": 11}]}
BATCH_CREATED: Final[_Json] = {
    "data": [
        CREATED,
        {
            "error": {
                "code": "invalid_request",
                "detail": "The request is not valid; see `errors`.",
                "errors": [{"path": "/tasks/1/priority", "message": "Expected `float` <= 10.0"}],
            }
        },
    ]
}
RETRIED: Final[_Json] = {"task_id": NEW_TASK_ID, "status": "pending", "retry_of": TASK_ID}

_ATTEMPT: Final[_Json] = {
    "number": 1,
    "executor": "echo",
    "started_at": "2023-10-24T08:15:30.234567Z",
    "ended_at": "2023-10-24T08:15:32.345678Z",
    "outcome": "completed",
    "error_code": None,
}
LISTED: Final[_Json] = {
    "task_id": TASK_ID,
    "status": "completed",
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
    "priority": 0,
    "not_before": None,
    "cancel_requested_at": None,
    "expires_at": "2023-10-25T08:15:32.345678Z",
    "retry_of": None,
    "attempts": [_ATTEMPT],
}
TASK: Final[_Json] = {
    **{name: LISTED[name] for name in ("task_id", "status")},
    "result": {"output": "Processed input: 这是一个测试输入"},
    **{name: value for name, value in LISTED.items() if name not in ("task_id", "status")},
    "queue_position": None,
    "progress": None,
    "partial_output": None,
}


def _frame(number: int, kind: str, data: _Json) -> str:
    return f"id: {number}\nevent: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


_STARTED: Final[_Json] = {
    "status": "running",
    "attempt": 1,
    "at": "2023-10-24T08:15:30.234567Z",
    "outcome": None,
    "error_code": None,
}
_ENDED: Final[_Json] = {
    "status": "completed",
    "attempt": 1,
    "at": "2023-10-24T08:15:32.345678Z",
    "outcome": "completed",
    "error_code": None,
}
EVENT_STREAM: Final = "".join(
    [
        _frame(2, "status", _STARTED),
        _frame(3, "progress", {"progress": 0.5, "attempt": 1}),
        _frame(4, "log", {"message": "halfway", "attempt": 1}),
        _frame(5, "output", {"delta": TASK["result"]["output"], "index": 0, "attempt": 1}),
        _frame(6, "status", _ENDED),
        _frame(7, "usage", {"input_tokens": 8, "output_tokens": 11, "total_tokens": 19}),
        _frame(8, "done", TASK),
    ]
)
CANCELLED: Final[_Json] = TASK | {
    "status": "cancelled",
    "result": None,
    "started_at": None,
    "attempt": 0,
    "cancel_requested_at": "2023-10-24T08:15:32.345678Z",
    "attempts": [],
}
TASKS: Final[_Json] = {
    "data": [LISTED],
    "has_more": True,
    "next_cursor": "AAYIclHdkkAAAAAAAAAAKZtYk1o5dXcpQ8dFvBV1",
}
_USAGE: Final = {"input_tokens": 12, "output_tokens": 34, "total_tokens": 46}
_NO_USAGE: Final = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
QUEUE: Final[_Json] = {
    "by_status": {"pending": 3, "running": 1},
    "by_executor": {
        "echo": {"pending": 0, "running": 1, "workers": 1, "usage": _NO_USAGE},
        "llama": {"pending": 3, "running": 0, "workers": 0, "usage": _USAGE},
    },
    "by_model": {
        "gpt-3.5-turbo": {"pending": 0, "running": 1, "usage": _NO_USAGE},
        "llama-3": {"pending": 3, "running": 0, "usage": _USAGE},
    },
    "oldest_pending_seconds": 4.2,
    "unserved": ["llama"],
    "limits": {"max_pending_tasks": 10000, "max_concurrent_tasks": 8},
}
ALIVE: Final[_Json] = {"status": "alive"}
READY: Final[_Json] = {"status": "ready", "faults": {}}
NOT_READY: Final[_Json] = {"status": "not_ready", "faults": {"store": "it does not answer"}}


def health(app_name: str) -> _Json:
    """That of a service of this name which is well."""
    return {"status": "healthy", "version": VERSION, "tasks_count": 5, "app_name": app_name}
