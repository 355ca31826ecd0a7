"""What all parts of the contract begin with."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from adapters.testing.fakes import FakeClock
from adapters.testing.store_case import Case
from domain.ports import Store


def on_event_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make an `async def` a test: its store is opened, used and closed in one event loop."""

    @functools.wraps(test)
    def run(self: Any, case: Case, **parameters: Any) -> None:
        async def whole() -> None:
            async with case:
                await test(self, case, **parameters)

        asyncio.run(whole())

    return run


class Contract:
    """Tests of a store that somebody opens."""

    def open_store(self, place: Path, clock: FakeClock) -> AbstractAsyncContextManager[Store]:
        """An empty store, or the one that was opened in this folder before, going by `clock`."""
        raise NotImplementedError

    @pytest.fixture
    def case(self, tmp_path: Path) -> Case:
        return Case(self.open_store, tmp_path)
