"""Times claims on a store itself, in a process of its own: what a full store costs a worker."""

import asyncio
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from os import sched_setaffinity
from pathlib import Path

import filling
from bench import Bench, Contestant, Figure, Line, Sample
from machine import SERVER_CORE

from adapters.clock import SystemClock
from adapters.stores.memory import MemoryOptions, MemoryTaskStore
from adapters.stores.sqlite import SqliteOptions, SqliteTaskStore
from domain.ports import Store

_CLAIMED = 8
_CLAIMS = 100


def _in_memory(label: str, *, full: bool) -> Contestant:
    def contestant(bench: Bench) -> AbstractContextManager[Sample]:
        finished, pending = (bench.scale.kept, bench.scale.pending) if full else (0, 0)
        return _claiming(label, None, finished, pending)

    return contestant


def _in_sqlite(label: str, *, full: bool) -> Contestant:
    def contestant(bench: Bench) -> AbstractContextManager[Sample]:
        directory = bench.copy_of_kept() if full else bench.new_directory()
        return _claiming(label, directory / "tasks.db", 0, bench.scale.pending if full else 0)

    return contestant


@contextmanager
def _claiming(label: str, database: Path | None, finished: int, pending: int) -> Iterator[Sample]:
    """Open the store (None: in memory) in a process of its own; add tasks; claim when asked."""
    spawn = get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(theirs, database, finished, pending), daemon=True)
    process.start()
    theirs.close()

    def sample() -> Mapping[str, float]:
        ours.send("claim")
        return {label: ours.recv() * 1e6}

    try:
        ours.recv()
        yield sample
    finally:
        process.kill()
        process.join()


def _serve(pipe: Connection, database: Path | None, finished: int, pending: int) -> None:
    sched_setaffinity(0, {SERVER_CORE})
    asyncio.run(_samples(pipe, _open(database), finished, pending))


def _open(database: Path | None) -> AbstractAsyncContextManager[Store]:
    opened: AbstractAsyncContextManager[Store]
    if database is None:
        opened = MemoryTaskStore(MemoryOptions(), SystemClock())
    else:
        opened = SqliteTaskStore(SqliteOptions(path=str(database)), SystemClock())
    return opened


async def _samples(
    pipe: Connection,
    opening: AbstractAsyncContextManager[Store],
    finished: int,
    pending: int,
) -> None:
    async with opening as store:
        await filling.fill(store, finished=finished, pending=pending)
        pipe.send("filled")
        while pipe.recv():
            pipe.send(statistics.median([await _claim(store) for _ in range(_CLAIMS)]))


async def _claim(store: Store) -> float:
    await filling.submit(store, _CLAIMED)
    began = time.perf_counter()
    claims = await filling.claim(store, _CLAIMED)
    seconds = time.perf_counter() - began
    assert len(claims) == _CLAIMED
    await filling.complete(store, claims)
    return seconds


CLAIM = Figure(
    "claim",
    "claim of 8: 1,000,000 finished and 100,000 pending, to only these 8 (store in process)",
    "µs",
    [
        _in_memory("memory, empty", full=False),
        _in_memory("memory, full", full=True),
        _in_sqlite("SQLite, empty", full=False),
        _in_sqlite("SQLite, full", full=True),
    ],
    [
        Line("memory, empty"),
        Line("memory, full", "memory, empty", at_most=1.5),
        Line("SQLite, empty"),
        Line("SQLite, full", "SQLite, empty", at_most=1.5),
    ],
)
