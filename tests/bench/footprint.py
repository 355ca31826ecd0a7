"""What the service costs besides time per request: memory, flushes to the disk, its start."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import load
import servers
import tasks
from bench import Bench, Contestant, Figure, Line, Sample
from contestants import BARE, MEMORY, ORIGINAL, QUIET, SQLITE, fresh, sampled, service
from servers import Server

_WARMING_UP = 5_000
_LETTERS = 484
"""So many in the input: JSON of input and result together is then 1,000 bytes."""


def _stored(bench: Bench, server: Server, label: str) -> Mapping[str, float]:
    """What the resident memory grew by, after as many tasks as fill caches and free lists."""
    _run(bench, server, min(_WARMING_UP, bench.scale.stored))
    before = server.resident_megabytes()
    _run(bench, server, bench.scale.stored)
    grown = server.resident_megabytes() - before
    return {label: grown * 100_000 / bench.scale.stored}


def _run(bench: Bench, server: Server, number: int) -> None:
    answers = bench.load(load.each, server, [tasks.submit(text="x" * _LETTERS)] * number)
    tasks.finished(bench, server, tasks.ids(answers)[-100:])


def _flushes_of(request: bytes) -> Callable[[Bench, Server, str], Mapping[str, float]]:
    def flushes(bench: Bench, server: Server, label: str) -> Mapping[str, float]:
        before = server.fsyncs()
        answers = bench.load(load.during, server, bench.scale.seconds, [request])
        return {label: (server.fsyncs() - before) / len(answers.sent)}

    return flushes


def _traced(bench: Bench) -> AbstractContextManager[Server]:
    return servers.service(bench.new_directory(), SQLITE | QUIET, traced=True)


def _starts(
    label: str, settings: Mapping[str, str], directory: Callable[[Bench], Path]
) -> Contestant:
    @contextmanager
    def contestant(bench: Bench) -> Iterator[Sample]:
        yield lambda: {label: servers.seconds_to_ready(directory(bench), settings)}

    return contestant


@contextmanager
def _bare_starts(bench: Bench) -> Iterator[Sample]:
    def sample() -> Mapping[str, float]:
        began = time.monotonic()
        with BARE(bench):
            return {"bare Litestar": time.monotonic() - began}

    yield sample


RESIDENT = Figure(
    "resident",
    "resident memory per 100,000 kept tasks of 1 kB (input and result together)",
    "MB",
    [
        fresh("original design without its scan", ORIGINAL, _stored),
        fresh("memory", service(MEMORY, QUIET), _stored),
        fresh("SQLite", service(SQLITE, QUIET), _stored),
    ],
    [
        Line("original design without its scan"),
        Line("memory", at_most=200),
        Line("SQLite", at_most=5),
    ],
)

START = Figure(
    "start",
    "start of the process to `service_ready` (Litestar: to its first answer)",
    "s",
    [
        _bare_starts,
        _starts("memory", MEMORY, Bench.new_directory),
        _starts("SQLite, nothing kept", SQLITE, Bench.new_directory),
        _starts("SQLite, 1,000,000 kept", SQLITE, Bench.copy_of_kept),
    ],
    [
        Line("bare Litestar"),
        Line("memory", at_most=0.8),
        Line("SQLite, nothing kept", at_most=0.8),
        Line("SQLite, 1,000,000 kept", at_most=1.2),
    ],
)

FSYNCS = Figure(
    "fsyncs",
    "fsyncs per accepted task, 64 clients (counted by strace)",
    "",
    [
        sampled("SQLite, tasks wait", _traced, _flushes_of(tasks.SUBMIT_LONG)),
        sampled("SQLite, echo tasks run as they come", _traced, _flushes_of(tasks.SUBMIT)),
    ],
    [
        Line("SQLite, tasks wait", at_most=0.2),
        Line("SQLite, echo tasks run as they come"),
    ],
)
