"""The events of a task as lines: their number, kind, and what they say."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing
from typing import Any, Final

import msgspec
from msgspec import Raw

from entrypoints.client.exit_codes import ExitCode, exit_code_of
from entrypoints.client.following import DONE, follow
from entrypoints.client.service import Event, Service
from entrypoints.client.showing import put, put_json

_WORDS: Final[Mapping[str, Callable[[dict[str, Any]], str]]] = {
    "status": lambda data: " ".join(map(str, _told(data))),
    "output": lambda data: msgspec.json.encode(data["delta"]).decode(),
    "progress": lambda data: f"{data['progress']:.0%}",
    "log": lambda data: " ".join(data["message"].splitlines()),
    "usage": lambda data: f"{data['total_tokens']} tokens",
    DONE: lambda data: data["status"],
}


async def watch(service: Service, task_id: str, after: int, *, as_json: bool) -> ExitCode:
    """Write the events behind this number, to the last one, and tell what came of the task."""
    put_event = _put_as_json if as_json else _put_as_line
    async with aclosing(follow(service, task_id, after)) as events:
        async for event in events:
            put_event(event)
            if event.kind == DONE:
                return exit_code_of(msgspec.json.decode(event.data))
    return exit_code_of(await service.task(task_id))


def _put_as_json(event: Event) -> None:
    put_json({"id": event.number, "event": event.kind, "data": Raw(event.data)})


def _put_as_line(event: Event) -> None:
    put(f"{event.number}\t{event.kind}\t{_words(event)}\n")


def _words(event: Event) -> str:
    data = msgspec.json.decode(event.data)
    return _WORDS[event.kind](data) if event.kind in _WORDS else event.data.decode()


def _told(status: dict[str, Any]) -> Iterator[object]:
    yield status["status"]
    if status["attempt"]:
        yield f"(attempt {status['attempt']})"
    if status["error_code"]:
        yield status["error_code"]
