"""What only PostgreSQL promises: several processes on one database, and a server that goes away."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import asyncpg
import pytest

from adapters.clock import SystemClock
from adapters.stores.postgres import PostgresOptions, PostgresTaskStore
from adapters.stores.postgres.opening import NEWEST
from adapters.testing.store_case import NO_LIMITS, RESULT, WORKER, new_task
from domain.errors import StoreUnavailable, StoreUnusable
from domain.ports import Completed
from domain.task import ANONYMOUS, TaskStatus

T = TypeVar("T")

DEADLINE = 10.0
LEASE = 30.0


def on_event_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return run


@pytest.fixture
def dsn(new_schema: Callable[[], str]) -> str:
    return new_schema()


def node(dsn: str) -> PostgresTaskStore:
    return PostgresTaskStore(PostgresOptions(dsn=dsn, pool_size=4), SystemClock())


@asynccontextmanager
async def statements(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


@on_event_loop
async def test_two_nodes_that_claim_at_once_get_each_task_once(dsn: str) -> None:
    async with node(dsn) as one, node(dsn) as other:
        await one.submit([new_task() for _ in range(200)], NO_LIMITS)
        claims = await asyncio.gather(
            *(store.claim(WORKER, {"echo": 10}, LEASE) for _ in range(20) for store in (one, other))
        )
        fences = [claim.fence for found in claims for claim in found]
        assert len(fences) == len(set(fences)) == 200
        assert (await other.counts()).running == 200


@on_event_loop
async def test_a_task_submitted_on_one_node_wakes_the_other(dsn: str) -> None:
    async with node(dsn) as one, node(dsn) as other:
        told = asyncio.Event()
        other.on_work(told.set)
        async with asyncio.timeout(DEADLINE):
            while not told.is_set():  # its connection for hints may still be on its way
                await one.submit([new_task()], NO_LIMITS)
                await asyncio.wait([asyncio.create_task(told.wait())], timeout=0.05)


@on_event_loop
async def test_a_task_that_another_node_took_over_refuses_the_first_ones_result(dsn: str) -> None:
    async with node(dsn) as one, node(dsn) as other:
        await one.submit([new_task()], NO_LIMITS)
        [lost] = await one.claim("one", {"echo": 1}, lease_seconds=0)
        assert [taken.fence for taken in await other.reclaim(5, 10)] == [lost.fence]
        [taken] = await other.claim("other", {"echo": 1}, LEASE)
        assert await one.renew([lost.fence], LEASE) == set()
        assert await one.settle([Completed(lost.fence, b'{"output":"late"}', None)]) == [False]
        assert await other.settle([Completed(taken.fence, RESULT, None)]) == [True]
        task = await one.get(lost.task.id, ANONYMOUS)
        assert task is not None
        assert (task.status, task.attempt, task.result) == (TaskStatus.COMPLETED, 2, RESULT)


@on_event_loop
async def test_connections_that_the_server_ends_are_made_anew(dsn: str) -> None:
    async with node(dsn) as store, statements(dsn) as server:
        await store.submit([new_task()], NO_LIMITS)
        await server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        [claim] = await healed(lambda: store.claim(WORKER, {"echo": 1}, LEASE))
        assert await healed(lambda: store.renew([claim.fence], LEASE)) == {claim.fence}
        assert await healed(lambda: store.settle([Completed(claim.fence, RESULT, None)])) == [True]


async def healed(call: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """What the call answers once the store has noticed which of its connections are gone."""
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                return await call()
            except StoreUnavailable:
                continue


@on_event_loop
async def test_a_server_that_is_not_there_cannot_be_used() -> None:
    with pytest.raises(StoreUnusable):
        async with node("postgresql://postgres@127.0.0.1:1/test"):
            pass


@on_event_loop
async def test_a_newer_schema_is_refused_and_left_alone(dsn: str) -> None:
    async with node(dsn):
        pass
    async with statements(dsn) as server:
        await server.execute("INSERT INTO task_schema (version) VALUES ($1)", NEWEST + 1)
        with pytest.raises(StoreUnusable, match=f"version {NEWEST + 1}"):
            async with node(dsn):
                pass
        assert await server.fetchval("SELECT count(*) FROM task_schema") == NEWEST + 1


@on_event_loop
async def test_nodes_that_open_an_empty_database_at_once_all_find_the_schema(dsn: str) -> None:
    async def open_and_look() -> int:
        async with node(dsn) as store:
            return (await store.counts()).total

    assert await asyncio.gather(*(open_and_look() for _ in range(5))) == [0] * 5
