"""How fast workers of their own run what is queued, and what limits them.

All tasks are queued in one step, and nothing is submitted meanwhile. The workers of PostgreSQL wait
for them, idle; the one process of SQLite finds them when it starts, for nobody else can put them
there. Every process may use all cores, as the server of PostgreSQL does.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import filling
import postgres
import servers
from bench import Bench, Contestant, Figure, Line, Sample
from contestants import QUIET, SQLITE, on_postgres
from machine import ALL_CORES
from servers import Server

from adapters.clock import SystemClock
from adapters.stores.postgres import PostgresOptions, PostgresTaskStore
from adapters.stores.sqlite import SqliteOptions, SqliteTaskStore
from domain.ports import Store

_SLOTS: Final = 64
_SETTINGS: Final = {**QUIET, "INFERENCE__MAX_CONCURRENT_TASKS": str(_SLOTS)}
_POLL_SECONDS: Final = 0.1
_FINISH_SECONDS: Final = 120
_DRAINED: Final = (
    "SELECT count(*), min(started_at), max(completed_at) FROM task"
    " WHERE status = 'completed' AND created_at >= "
)

Drained = Callable[[], Sequence[int]]
"""How many have completed, when the first one started and the last one ended (microseconds)."""


def _workers(label: str, number: int) -> Contestant:
    @contextmanager
    def contestant(bench: Bench) -> Iterator[Sample]:
        with postgres.database() as dsn, ExitStack() as stack:
            settings = {**_SETTINGS, **on_postgres(dsn)}
            workers = [
                stack.enter_context(servers.worker(bench.new_directory(), settings))
                for _ in range(number)
            ]
            yield lambda: _by_workers(label, dsn, workers, bench.scale.queued)

    return contestant


def _by_workers(
    label: str, dsn: str, workers: Sequence[Server], number: int
) -> Mapping[str, float]:
    postgres.vacuum(dsn)
    began = time.time_ns() // 1000
    workers_used = sum(worker.cpu_seconds() for worker in workers)
    server_used = postgres.cpu_seconds_of(dsn)
    _queue(PostgresTaskStore(PostgresOptions(dsn=dsn), SystemClock()), number)
    per_second = _per_second(lambda: postgres.fetch(dsn, f"{_DRAINED} $1", began)[0], number)
    workers_used = sum(worker.cpu_seconds() for worker in workers) - workers_used
    server_used = postgres.cpu_seconds_of(dsn) - server_used
    return {
        label: per_second,
        f"{label}: its own CPU, µs a task": workers_used * 1e6 / number,
        f"{label}: PostgreSQL's, µs a task": server_used * 1e6 / number,
    }


@contextmanager
def _sqlite(bench: Bench) -> Iterator[Sample]:
    def sample() -> Mapping[str, float]:
        directory, number = bench.new_directory(), bench.scale.queued
        path, settings = directory / "tasks.db", {**_SETTINGS, **SQLITE}
        _queue(SqliteTaskStore(SqliteOptions(path=str(path)), SystemClock()), number)
        with servers.service(directory, settings, cores=ALL_CORES):
            return {"SQLite, one process": _per_second(partial(_drained_of, path), number)}

    yield sample


def _drained_of(path: Path) -> Sequence[int]:
    with closing(sqlite3.connect(path)) as connection:
        row: Sequence[int] = connection.execute(f"{_DRAINED} 0").fetchone()
        return row


def _queue(opening: AbstractAsyncContextManager[Store], number: int) -> None:
    async def submit() -> None:
        async with opening as store:
            await filling.submit_at_once(store, number)

    asyncio.run(submit())


def _per_second(drained: Drained, number: int) -> float:
    end = time.monotonic() + _FINISH_SECONDS
    while time.monotonic() < end:
        completed, first_start, last_end = drained()
        if completed == number:
            return number / (last_end - first_start) * 1e6
        time.sleep(_POLL_SECONDS)
    raise TimeoutError(f"{number} tasks took longer than {_FINISH_SECONDS} s")


def _lines(label: str, over: str, at_least: float | None) -> list[Line]:
    own, server = f"{label}: its own CPU, µs a task", f"{label}: PostgreSQL's, µs a task"
    return [Line(label, over, at_least=at_least), Line(own), Line(server)]


WORKERS = Figure(
    "workers",
    f"20,000 echo tasks queued, {_SLOTS} slots a process: first start to last completion",
    "/s",
    [
        _sqlite,
        _workers("one worker", 1),
        _workers("two workers", 2),
        _workers("four workers", 4),
    ],
    [
        Line("SQLite, one process"),
        *_lines("one worker", "SQLite, one process", 1.0),
        *_lines("two workers", "one worker", 1.0),
        *_lines("four workers", "one worker", None),
    ],
)
