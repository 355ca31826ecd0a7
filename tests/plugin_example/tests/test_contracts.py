"""The contracts that the service ships, held against this package's store and executor."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from shelf.executor import ShoutExecutor, ShoutOptions
from shelf.store import ShelfOptions, ShelfTaskStore

from adapters.testing.executor_contract import ExecutorContract, attempt_of
from adapters.testing.fakes import FakeClock
from adapters.testing.store_case import Case, new_task
from adapters.testing.store_contract import EmbeddedStoreContract
from adapters.testing.store_contract.base import on_event_loop
from domain.inference import InferenceRequest
from domain.ports import Store
from domain.task import ANONYMOUS, Idempotency


class TestShelfTaskStore(EmbeddedStoreContract):
    def open_store(self, place: Path, clock: FakeClock) -> AbstractAsyncContextManager[Store]:
        return ShelfTaskStore(ShelfOptions(), clock)

    @on_event_loop
    async def test_a_removed_task_leaves_nothing_behind(self, case: Case) -> None:
        [task] = await case.submit(new_task(idempotency=Idempotency("key", b"1")))
        await case.store.delete(task.id, ANONYMOUS)
        kept = {name: one for name, one in vars(case.store).items() if isinstance(one, dict | set)}
        assert kept
        assert not any(kept.values()), kept


class TestShoutExecutor(ExecutorContract):
    factory = ShoutExecutor

    @asynccontextmanager
    async def options(self) -> AsyncIterator[ShoutOptions]:
        yield ShoutOptions(ending="!!")

    def good(self) -> list[tuple[InferenceRequest, str]]:
        return [
            (attempt_of("hear me"), "HEAR ME!!"),
            (attempt_of("  and  again "), "  AND  AGAIN !!"),
        ]

    def endless(self) -> InferenceRequest:
        return attempt_of("hello", options={"pause_seconds": 60})

    def bad(self) -> list[InferenceRequest]:
        return [attempt_of({"not": "a text"})]
