"""Every store that we ship keeps the one contract."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from adapters.stores.memory import MemoryOptions, MemoryTaskStore
from adapters.testing.fakes import FakeClock
from adapters.testing.store_contract import EmbeddedStoreContract
from domain.ports import Store


class TestMemoryTaskStore(EmbeddedStoreContract):
    def open_store(self, place: Path, clock: FakeClock) -> AbstractAsyncContextManager[Store]:
        return MemoryTaskStore(MemoryOptions(), clock)
