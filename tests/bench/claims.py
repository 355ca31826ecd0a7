"""Times claims on a store itself, in a process of its own: what a full store costs a worker."""

import asyncio
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from os import sched_setaffinity

import filling
import postgres
from bench import Bench, Contestant, Figure, Line, Sample
from machine import SERVER_CORE
from msgspec import Struct

from adapters.clock import SystemClock
from adapters.stores.memory import MemoryOptions, MemoryTaskStore
from adapters.stores.postgres import PostgresOptions, PostgresTaskStore
from adapters.stores.sqlite import SqliteOptions, SqliteTaskStore
from domain.ports import Store, StoreFactory

_CLAIMED = 8
_CLAIMS = 100


def _in_memory(label: str, *, full: bool) -> Contestant:
    def contestant(bench: Bench) -> AbstractContextManager[Sample]:
        return _claiming(label, MemoryTaskStore, MemoryOptions(), *_amounts(bench, full))

    return contestant


def _in_postgres(label: str, *, full: bool) -> Contestant:
    @contextmanager
    def contestant(bench: Bench) -> Iterator[Sample]:
        with postgres.database() as dsn:
            options = PostgresOptions(dsn=dsn)
            with _claiming(label, PostgresTaskStore, options, *_amounts(bench, full)) as sample:
                postgres.vacuum(dsn)
                yield sample

    return contestant


def _amounts(bench: Bench, full: bool) -> tuple[int, int]:
    """Finished and pending tasks."""
    return (bench.scale.kept, bench.scale.pending) if full else (0, 0)


def _in_sqlite(label: str, *, full: bool) -> Contestant:
    def contestant(bench: Bench) -> AbstractContextManager[Sample]:
        directory = bench.copy_of_kept() if full else bench.new_directory()
        options = SqliteOptions(path=str(directory / "tasks.db"))
        return _claiming(label, SqliteTaskStore, options, 0, bench.scale.pending if full else 0)

    return contestant


@contextmanager
def _claiming(
    label: str, store: StoreFactory, options: Struct, finished: int, pending: int
) -> Iterator[Sample]:
    """Open the store in a process of its own; add tasks; claim when asked."""
    spawn = get_context("spawn")
    ours, theirs = spawn.Pipe()
    arguments = (theirs, store, options, finished, pending)
    process = spawn.Process(target=_serve, args=arguments, daemon=True)
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


def _serve(
    pipe: Connection, store: StoreFactory, options: Struct, finished: int, pending: int
) -> None:
    sched_setaffinity(0, {SERVER_CORE})
    asyncio.run(_samples(pipe, store(options, SystemClock()), finished, pending))


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
        _in_postgres("PostgreSQL, empty", full=False),
        _in_postgres("PostgreSQL, full", full=True),
    ],
    [
        Line("memory, empty"),
        Line("memory, full", "memory, empty", at_most=1.5),
        Line("SQLite, empty"),
        Line("SQLite, full", "SQLite, empty", at_most=1.5),
        Line("PostgreSQL, empty"),
        Line("PostgreSQL, full", "PostgreSQL, empty", at_most=1.5),
    ],
)
