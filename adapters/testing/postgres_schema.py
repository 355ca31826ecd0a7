"""A schema of a test's own on a real PostgreSQL, whose `task_now()` goes by a `FakeClock`."""

import asyncio
import inspect
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import asyncpg

from adapters.testing.fakes import FakeClock
from domain.ports import Store

_SHIFT: Final = """
CREATE TABLE IF NOT EXISTS test_clock AS SELECT 0::bigint AS now;
CREATE OR REPLACE FUNCTION task_now() RETURNS bigint LANGUAGE sql STABLE
    AS 'SELECT now FROM test_clock';
"""


@asynccontextmanager
async def connected(dsn: str, **settings: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection for statements of the test's own; `settings` are those of its session."""
    connection = await asyncpg.connect(dsn, server_settings=settings)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def store_in_schema(
    open_store: Callable[[str], AbstractAsyncContextManager[Store]],
    database: str,
    place: Path,
    clock: FakeClock,
) -> AsyncIterator[Store]:
    """The store of this place: `open_store` is given a DSN of `database` with a schema of its own.

    The name of the schema is kept in a file of the place, so that a copy of it is the same store.
    """
    named = place / "schema"
    if not named.exists():
        named.write_text(f"test_{uuid.uuid4().hex}")
    schema = named.read_text()
    dsn = f"{database}?search_path={schema}"
    async with connected(dsn) as connection:
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        async with open_store(dsn) as store:
            await connection.execute(_SHIFT)
            shifted: Any = _ShiftedStore(store, clock, connection)
            yield shifted


class _ShiftedStore:
    """Sets the server's clock to the test's before each call that finds it moved."""

    def __init__(self, store: Store, clock: FakeClock, connection: asyncpg.Connection) -> None:
        self._store = store
        self._clock = clock
        self._connection = connection
        self._one_at_a_time = asyncio.Lock()
        self._shown = 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method: Callable[..., Any] = getattr(self._store, name)
        if not inspect.iscoroutinefunction(method):
            return method

        async def call(*arguments: Any, **options: Any) -> Any:
            async with self._one_at_a_time:
                await self._show(self._clock.now())
            return await method(*arguments, **options)

        return call

    async def _show(self, now: int) -> None:
        if now != self._shown:
            await self._connection.execute("UPDATE test_clock SET now = $1", now)
            self._shown = now
