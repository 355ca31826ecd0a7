"""The requests that make the load, and what is read from their answers."""

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import load
import msgspec
from bench import Bench
from load import Answers
from servers import Server

_FINISH_SECONDS = 120
PROMPT = "The quick brown fox jumps over 12 lazy dogs, in 2026. " * 75


class View(msgspec.Struct):
    """What the bench looks at of a task, the service's as well as the floors'."""

    task_id: str
    status: str
    result: Any = None
    completed_at: datetime | None = None


_view = msgspec.json.Decoder(View)


def submit(*headers: str, text: str = "hello", **options: object) -> bytes:
    """A request that creates a task. `headers` are more of these, as `Name: value`."""
    return _post("inference", _submission(text, options), headers)


def batch(number: int, **options: object) -> bytes:
    """A request that creates so many equal tasks."""
    return _post("batch", {"tasks": [_submission("hello", options)] * number})


def _submission(text: str, options: Mapping[str, object]) -> Mapping[str, object]:
    return {"input": text, "options": {"model": "bench", **options}}


def _post(path: str, content: object, headers: Iterable[str] = ()) -> bytes:
    body = msgspec.json.encode(content)
    more = "".join(f"{header}\r\n" for header in headers)
    head = (
        f"POST /api/v1/task/{path} HTTP/1.1\r\nHost: localhost\r\n{more}"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


SUBMIT = submit()
SUBMIT_LONG = submit(delay_seconds=3600)
"""A task that takes as long as it may, as inference does: it leaves the core to the submits."""


def ids(answers: Answers) -> list[str]:
    return [_view.decode(body).task_id for body in answers.bodies]


def get(task_id: str, *headers: str) -> bytes:
    more = "".join(f"{header}\r\n" for header in headers)
    return f"GET /api/v1/task/{task_id} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n".encode()


def events(task_id: str) -> bytes:
    """A request for the stream of what happens to a task."""
    return f"GET /api/v1/task/{task_id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def listed(query: str) -> bytes:
    """A request for a page of tasks."""
    return f"GET /api/v1/task?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def completed_at(body: bytes) -> float:
    """When the task of this answer ended; it has."""
    ended = _view.decode(body).completed_at
    assert ended is not None
    return ended.timestamp()


def finished(bench: Bench, server: Server, task_ids: Sequence[str]) -> dict[str, View]:
    """Wait until all have completed; the last one is asked for until it has, then all."""
    end = time.monotonic() + _FINISH_SECONDS
    while time.monotonic() < end:
        if _completed(_views(bench, server, task_ids[-1:])):
            views = _views(bench, server, task_ids)
            if _completed(views):
                return {view.task_id: view for view in views}
        time.sleep(0.005)
    raise TimeoutError(f"{len(task_ids)} tasks took longer than {_FINISH_SECONDS} s")


def _views(bench: Bench, server: Server, task_ids: Iterable[str]) -> list[View]:
    answers = bench.load(load.each, server, [get(task_id) for task_id in task_ids])
    return [_view.decode(body) for body in answers.bodies]


def _completed(views: Iterable[View]) -> bool:
    return all(view.status == "completed" for view in views)
