"""Stores that hold very many tasks already, filled through their own ports: no second schema here.

`PrefilledMemoryStore` is a store plug-in (`store.backend: filling:PrefilledMemoryStore`), for the
memory store can only be filled from inside the process that uses it.
"""

import asyncio
from pathlib import Path
from typing import ClassVar, Self

from msgspec import Struct
from uuid_utils.compat import uuid7

from adapters.clock import SystemClock
from adapters.stores.memory import MemoryOptions, MemoryTaskStore
from adapters.stores.sqlite import SqliteOptions, SqliteTaskStore
from domain.ports import Claim, Clock, Completed, Store, SubmitLimits
from domain.retention import RetentionPolicy
from domain.task import ANONYMOUS, NewTask

LIMITS = SubmitLimits(max_pending=10_000_000, retention=RetentionPolicy(0, 0))
EXECUTOR = "echo"
_BATCH = 5_000
_RESULT = b'{"output":"Processed input: kept"}'


async def submit(store: Store, number: int) -> None:
    """Make that many pending tasks."""
    for begin in range(0, number, _BATCH):
        await submit_at_once(store, min(_BATCH, number - begin))


async def submit_at_once(store: Store, number: int) -> None:
    """The same in one call."""
    await store.submit([_new_task() for _ in range(number)], LIMITS)


async def claim(store: Store, number: int) -> list[Claim]:
    """Take that many under a lease that outlives the bench."""
    return await store.claim("bench", {EXECUTOR: number}, lease_seconds=3600)


async def complete(store: Store, claims: list[Claim]) -> None:
    """Settle these as finished now."""
    await store.settle([Completed(claim.fence, _RESULT, None) for claim in claims])


async def fill(store: Store, *, finished: int, pending: int = 0) -> None:
    """Put finished and pending tasks into an empty store."""
    for begin in range(0, finished, _BATCH):
        await submit(store, min(_BATCH, finished - begin))
        await complete(store, await claim(store, _BATCH))
    await submit(store, pending)


def fill_sqlite(path: Path, finished: int) -> None:
    """Make a database file with that many finished tasks."""

    async def make() -> None:
        options = SqliteOptions(path=str(path), durability="normal")
        async with SqliteTaskStore(options, SystemClock()) as store:
            await fill(store, finished=finished)

    asyncio.run(make())


def _new_task() -> NewTask:
    return NewTask(
        id=str(uuid7()),
        owner=ANONYMOUS,
        executor=EXECUTOR,
        model=None,
        metadata={},
        timeout_seconds=300,
        max_attempts=3,
        input=b'"kept"',
        options=b"{}",
    )


class PrefilledOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """How many finished tasks it holds when it is opened."""

    finished: int


class PrefilledMemoryStore(MemoryTaskStore):
    """The memory store, opened with tasks in it."""

    options_type: ClassVar[type[Struct]] = PrefilledOptions

    def __init__(self, options: PrefilledOptions, clock: Clock) -> None:
        super().__init__(MemoryOptions(), clock)
        self._finished = options.finished

    async def __aenter__(self) -> Self:
        await fill(self, finished=self._finished)
        return self
