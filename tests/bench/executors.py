"""What each executor costs, at several numbers of tasks at once, beside its backend alone."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Final

import load
import servers
from bench import Bench, Contestant, Figure, Line
from contestants import MEMORY, QUIET, floor, fresh
from machine import LOAD_CORE
from servers import Server
from throughput import drain

_AT_ONCE: Final = (8, 64, 512)
_DIRECT: Final = "backend called directly"
_CHAT: Final = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
)
_CHOSEN: Final = {"INFERENCE__DEFAULT_EXECUTOR": "chosen"}
_WITHOUT_BACKEND: Final = {
    "echo": {"KIND": "echo"},
    "python_callable, async": {"KIND": "python_callable", "TARGET": "functions:answer_at_once"},
    "python_callable, 2 processes": {
        "KIND": "python_callable",
        "TARGET": "functions:answer",
        "PROCESSES": "2",
    },
}

Settings = Mapping[str, str]


def _at_openai(port: int) -> Settings:
    return {"KIND": "openai_compatible", "BASE_URL": f"http://127.0.0.1:{port}/v1"}


def _at_json(port: int) -> Settings:
    url = f"http://127.0.0.1:{port}/"
    return {"KIND": "http_json", "URL": url, "OUTPUT_POINTER": "/output"}


_WITH_BACKEND: Final[Mapping[str, Callable[[int], Settings]]] = {
    "openai_compatible": _at_openai,
    "http_json": _at_json,
}
_EXECUTORS: Final = (*_WITHOUT_BACKEND, *_WITH_BACKEND)


def _label(name: str, at_once: int) -> str:
    return f"{name}, {at_once} at once"


def _directly(at_once: int) -> Contestant:
    """The same requests without the service: as many clients, each on one connection."""

    def call(bench: Bench, server: Server, label: str) -> Mapping[str, float]:
        answers = bench.load(load.each, server, [_CHAT] * bench.scale.drained, at_once)
        return {label: answers.per_second}

    return fresh(_label(_DIRECT, at_once), floor("backend:app"), call)


def _through(name: str, at_once: int) -> Contestant:
    @contextmanager
    def start(bench: Bench) -> Iterator[Server]:
        with _settings_of(bench, name) as settings:
            chosen = {f"EXECUTORS__CHOSEN__{key}": value for key, value in settings.items()}
            slots = {"INFERENCE__MAX_CONCURRENT_TASKS": str(at_once)}
            whole = {**MEMORY, **QUIET, **_CHOSEN, **slots, **chosen}
            with servers.service(bench.new_directory(), whole) as server:
                yield server

    return fresh(_label(name, at_once), start, _drained)


@contextmanager
def _settings_of(bench: Bench, name: str) -> Iterator[Settings]:
    """The settings of this executor; its backend, if it has one, runs on the core of the load."""
    if name in _WITHOUT_BACKEND:
        yield _WITHOUT_BACKEND[name]
        return
    with _backend(bench) as backend:
        yield _WITH_BACKEND[name](backend.port)


def _backend(bench: Bench) -> AbstractContextManager[Server]:
    return servers.floor("backend:app", bench.new_directory(), cores={LOAD_CORE})


def _drained(bench: Bench, server: Server, label: str) -> Mapping[str, float]:
    """Tasks a second, from the first submit to the last `completed_at`; and CPU for each."""
    before = server.cpu_seconds()
    drained = drain(bench, server, label)
    spent = server.cpu_seconds() - before
    return {**drained, f"{label}: CPU µs a task": spent / bench.scale.drained * 1e6}


EXECUTORS = Figure(
    "executors",
    "5,000 tasks through each executor, so many at once: tasks a second; CPU of the service a task",
    "",
    [
        *(_directly(at_once) for at_once in _AT_ONCE),
        *(_through(name, at_once) for name in _EXECUTORS for at_once in _AT_ONCE),
    ],
    [
        *(Line(_label(_DIRECT, at_once)) for at_once in _AT_ONCE),
        *(
            Line(_label(name, at_once), _label(_DIRECT, at_once))
            for name in _EXECUTORS
            for at_once in _AT_ONCE
        ),
        *(
            Line(f"{_label(name, at_once)}: CPU µs a task", over)
            for name in _EXECUTORS
            for at_once in _AT_ONCE
            for over in [_label("echo", at_once) + ": CPU µs a task" if name != "echo" else None]
        ),
    ],
)
