"""Events: how soon the first piece of output is there, and how many a second are told."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import load
import servers
import tasks
from bench import Bench, Contestant, Figure, Line
from contestants import MEMORY, QUIET, SQLITE, Start, floor, sampled, service
from latency import middle_and_end
from machine import LOAD_CORE
from servers import Server

_ASKED = 100
_TALKING: Final = 256
_READERS: Final = 256
_TALK_SECONDS: Final = 6.0
_CHAT: Final = (
    b"POST /slowly/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Length: 2\r\nConnection: close\r\n\r\n{}"
)
_SLOTS: Final = {"INFERENCE__MAX_CONCURRENT_TASKS": str(_TALKING)}
"""No task waits for another to end."""


def _directly(bench: Bench, server: Server, label: str) -> Mapping[str, float]:
    answers = bench.load(load.first_pieces, server, [_CHAT] * _ASKED, b"content")
    return middle_and_end(label, answers.sent, answers.received)


def _through(bench: Bench, server: Server, label: str) -> Mapping[str, float]:
    """From the submit to the first event with output, read by a client that asked at once."""
    submits = [tasks.submit("Connection: close") for _ in range(_ASKED)]
    answers = bench.load(load.first_outputs, server, submits)
    return middle_and_end(label, answers.sent, answers.received)


def _before_a_backend(*settings: Mapping[str, str]) -> Start:
    """The service before a backend that streams; that one runs on the core of the load."""

    @contextmanager
    def start(bench: Bench) -> Iterator[Server]:
        directory = bench.new_directory()
        with servers.floor("backend:app", directory, cores={LOAD_CORE}) as backend:
            chosen = {
                "EXECUTORS__CHOSEN__KIND": "openai_compatible",
                "EXECUTORS__CHOSEN__BASE_URL": f"http://127.0.0.1:{backend.port}/slowly",
                "INFERENCE__DEFAULT_EXECUTOR": "chosen",
            }
            with service(*settings, chosen)(bench) as server:
                yield server

    return start


def _told(talking: int, readers_of_each: int, label: str, start: Start) -> Contestant:
    """So many tasks talk, each read by so many: events a second that all readers got together."""

    def measure(bench: Bench, server: Server, label: str) -> Mapping[str, float]:
        long = tasks.submit(text="x" * 4_000, delay_seconds=_TALK_SECONDS, chunk_characters=1)
        task_ids = tasks.ids(bench.load(load.each, server, [long] * talking))
        requests = [tasks.events(task_id) for task_id in task_ids] * readers_of_each
        answers = bench.load(load.streamed, server, requests)
        told = sum(body.count(b"\nevent: output\n") for body in answers.bodies)
        return {label: told / (max(answers.received) - min(answers.sent))}

    return sampled(label, start, measure)


FIRST_OUTPUT = Figure(
    "first-output",
    "submit to the first event with output, one at a time; the backend alone: to its first piece",
    "ms",
    [
        sampled("backend alone", floor("backend:app"), _directly),
        sampled("memory", _before_a_backend(MEMORY, QUIET, _SLOTS), _through),
        sampled("SQLite", _before_a_backend(SQLITE, QUIET, _SLOTS), _through),
    ],
    [
        Line(f"{label}, {percent}", over and f"{over}, {percent}")
        for label, over in [
            ("backend alone", None),
            ("memory", "backend alone"),
            ("SQLite", "backend alone"),
        ]
        for percent in ("p50", "p99")
    ],
)

EVENTS = Figure(
    "events",
    "events with output told a second: 256 tasks talk, a reader each; one talks, 256 readers",
    "/s",
    [
        _told(_TALKING, 1, "memory, 256 tasks", service(MEMORY, QUIET, _SLOTS)),
        _told(_TALKING, 1, "SQLite, 256 tasks", service(SQLITE, QUIET, _SLOTS)),
        _told(1, _READERS, "memory, 256 readers", service(MEMORY, QUIET, _SLOTS)),
        _told(1, _READERS, "SQLite, 256 readers", service(SQLITE, QUIET, _SLOTS)),
    ],
    [
        Line("memory, 256 tasks"),
        Line("SQLite, 256 tasks", "memory, 256 tasks"),
        Line("memory, 256 readers"),
        Line("SQLite, 256 readers", "memory, 256 readers"),
    ],
)
