"""The stores that we ship: a test that asks for a `kind` runs on each of them.

Tests of this folder may be `async def`.
"""

import asyncio
import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import NamedTuple

import pytest

from adapters.stores.memory import MemoryOptions, MemoryTaskStore
from adapters.stores.postgres import PostgresOptions, PostgresTaskStore
from adapters.stores.sqlite import SqliteOptions, SqliteTaskStore
from adapters.testing.fakes import FakeClock
from adapters.testing.postgres_schema import store_in_schema
from adapters.testing.store_case import OpenStore
from domain.ports import Store


class StoreKind(NamedTuple):
    """How a store is opened, and what becomes of it when its process ends."""

    open_store: OpenStore
    is_durable: bool
    is_shared: bool


@pytest.fixture
def memory() -> StoreKind:
    def open_store(_: Path, clock: FakeClock) -> AbstractAsyncContextManager[Store]:
        return MemoryTaskStore(MemoryOptions(), clock)

    return StoreKind(open_store, is_durable=False, is_shared=False)


@pytest.fixture
def sqlite() -> StoreKind:
    def open_store(place: Path, clock: FakeClock) -> AbstractAsyncContextManager[Store]:
        path = str(place / "tasks.db")
        options = SqliteOptions(path=path, durability="normal", min_free_bytes=0)
        return SqliteTaskStore(options, clock)

    return StoreKind(open_store, is_durable=True, is_shared=False)


@pytest.fixture
def postgres(postgres_database: str) -> StoreKind:
    def open_store(place: Path, clock: FakeClock) -> AbstractAsyncContextManager[Store]:
        def open_there(dsn: str) -> AbstractAsyncContextManager[Store]:
            return PostgresTaskStore(PostgresOptions(dsn=dsn, pool_size=4), clock)

        return store_in_schema(open_there, postgres_database, place, clock)

    return StoreKind(open_store, is_durable=True, is_shared=True)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def kind(request: pytest.FixtureRequest) -> StoreKind:
    """Each store in turn."""
    kind: StoreKind = request.getfixturevalue(request.param)
    return kind


@pytest.fixture
def dsn(new_schema: Callable[[], str]) -> str:
    """The DSN of an empty schema of the test's own."""
    return new_schema()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run the `async def` tests of this folder on an event loop of their own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in wanted}))
    return True
