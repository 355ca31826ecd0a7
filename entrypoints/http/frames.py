"""The events of a task as they go over the wire: server-sent events (HTML standard, 9.2).

id: 7
event: output
data: {"delta":"Hello","index":0,"attempt":1}

"""

from typing import Final, assert_never

from msgspec import Struct

from domain.events import Done, Event, Logged, Output, ProgressMade, StatusChanged, UsageReported
from domain.service import TaskService
from entrypoints.http.schemas import LogEvent, OutputEvent, ProgressEvent, StatusEvent, encode
from entrypoints.http.timestamps import timestamp
from entrypoints.http.views import view_of

COMMENT: Final = b":\n\n"
"""Means nothing, and keeps what is between the two ends from taking them for dead."""


async def frame_of(tasks: TaskService, event: Event) -> bytes:
    """The event with its number."""
    kind, data = await _shown(tasks, event)
    # A result is JSON text as it was stored: there, a line break means no more than a space.
    line = encode(data).replace(b"\r", b" ").replace(b"\n", b" ")
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.number, kind, line)


async def _shown(tasks: TaskService, event: Event) -> tuple[bytes, Struct]:
    match event.what:
        case StatusChanged(status, attempt, at, outcome, error_code):
            return b"status", StatusEvent(status, attempt, timestamp(at), outcome, error_code)
        case Output(delta, index, attempt):
            return b"output", OutputEvent(delta, index, attempt)
        case ProgressMade(fraction, attempt):
            return b"progress", ProgressEvent(fraction, attempt)
        case Logged(message, attempt):
            return b"log", LogEvent(message, attempt)
        case UsageReported(usage):
            return b"usage", usage
        case Done(task):
            return b"done", await view_of(tasks, task)
        case other:
            assert_never(other)
