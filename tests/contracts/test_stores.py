"""Every store that we ship keeps the one contract."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from adapters.stores.memory import MemoryOptions, MemoryTaskStore
from adapters.stores.postgres import PostgresOptions, PostgresTaskStore
from adapters.stores.sqlite import SqliteOptions, SqliteTaskStore
from adapters.testing.fakes import FakeClock
from adapters.testing.postgres_schema import store_in_schema
from adapters.testing.store_contract import DurableStoreContract, EmbeddedStoreContract
from domain.ports import Store


class TestMemoryTaskStore(EmbeddedStoreContract):
    def open_store(self, place: Path, clock: FakeClock) -> AbstractAsyncContextManager[Store]:
        return MemoryTaskStore(MemoryOptions(), clock)


class TestSqliteTaskStore(EmbeddedStoreContract, DurableStoreContract):
    def open_store(self, place: Path, clock: FakeClock) -> AbstractAsyncContextManager[Store]:
        return SqliteTaskStore(SqliteOptions(path=str(place / "tasks.db"), min_free_bytes=0), clock)


class TestPostgresTaskStore(DurableStoreContract):
    """On the server of this machine; skipped by name where there is none."""

    database: str

    @pytest.fixture(autouse=True)
    def _database(self, postgres_database: str) -> None:
        self.database = postgres_database

    def open_store(self, place: Path, clock: FakeClock) -> AbstractAsyncContextManager[Store]:
        def open_there(dsn: str) -> AbstractAsyncContextManager[Store]:
            return PostgresTaskStore(PostgresOptions(dsn=dsn, pool_size=4), clock)

        return store_in_schema(open_there, self.database, place, clock)
