"""Every store that we ship keeps the one contract."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from adapters.stores.memory import MemoryOptions, MemoryTaskStore
from adapters.stores.sqlite import SqliteOptions, SqliteTaskStore
from adapters.testing.fakes import FakeClock
from adapters.testing.store_contract import DurableStoreContract, EmbeddedStoreContract
from domain.ports import Store


class TestMemoryTaskStore(EmbeddedStoreContract):
    def open_store(self, place: Path, clock: FakeClock) -> AbstractAsyncContextManager[Store]:
        return MemoryTaskStore(MemoryOptions(), clock)


class TestSqliteTaskStore(EmbeddedStoreContract, DurableStoreContract):
    def open_store(self, place: Path, clock: FakeClock) -> AbstractAsyncContextManager[Store]:
        return SqliteTaskStore(SqliteOptions(path=str(place / "tasks.db"), min_free_bytes=0), clock)
