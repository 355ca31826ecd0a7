"""Every store that we ship keeps the one contract."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from adapters.stores.memory import MemoryOptions, MemoryTaskStore
from adapters.stores.sqlite import SqliteOptions, SqliteTaskStore
from adapters.testing.fakes import FakeClock
from adapters.testing.store_case import OpenStore
from adapters.testing.store_contract import DurableStoreContract, EmbeddedStoreContract
from domain.ports import Store


class TestMemoryTaskStore(EmbeddedStoreContract):
    def open_store(self, place: Path, clock: FakeClock) -> AbstractAsyncContextManager[Store]:
        return MemoryTaskStore(MemoryOptions(), clock)


class TestSqliteTaskStore(EmbeddedStoreContract, DurableStoreContract):
    def open_store(self, place: Path, clock: FakeClock) -> AbstractAsyncContextManager[Store]:
        return SqliteTaskStore(SqliteOptions(path=str(place / "tasks.db"), min_free_bytes=0), clock)


class TestPostgresTaskStore(DurableStoreContract):
    opened: OpenStore

    @pytest.fixture(autouse=True)
    def _opened(self, postgres: Any) -> None:
        self.opened = postgres.open_store

    def open_store(self, place: Path, clock: FakeClock) -> AbstractAsyncContextManager[Store]:
        return self.opened(place, clock)
