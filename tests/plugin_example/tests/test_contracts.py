"""The contracts that the service ships, held against this package's store and executor."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from shelf.store import ShelfOptions, ShelfTaskStore

from adapters.testing.fakes import FakeClock
from adapters.testing.store_contract import EmbeddedStoreContract
from domain.ports import Store


class TestShelfTaskStore(EmbeddedStoreContract):
    def open_store(self, place: Path, clock: FakeClock) -> AbstractAsyncContextManager[Store]:
        return ShelfTaskStore(ShelfOptions(), clock)
