"""The framework's own floor: bare Litestar handlers, a Struct in, JSON out, nothing kept."""

from typing import Any

from litestar import Litestar, get, post
from litestar.params import FromPath
from msgspec import Struct

ID = "00000000-0000-0000-0000-000000000000"


class Submission(Struct):
    input: str | list[Any] | dict[str, Any]
    options: dict[str, Any] = {}


class Submitted(Struct):
    task_id: str
    status: str


class Task(Struct):
    task_id: str
    status: str
    result: Any
    created_at: str
    started_at: str | None
    completed_at: str | None
    error: Any


@post("/api/v1/task/inference", status_code=202)
async def submit(data: Submission) -> Submitted:
    return Submitted(ID, "pending")


@get("/api/v1/task/{task_id:str}")
async def task(task_id: FromPath[str]) -> Task:
    at = "2023-10-24T08:15:30.123456Z"
    return Task(task_id, "completed", {"output": "Processed input: x"}, at, at, at, None)


app = Litestar([submit, task], openapi_config=None, logging_config=None)
