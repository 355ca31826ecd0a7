"""What only PostgreSQL promises: several processes on one database."""

import asyncio
import itertools
import time

import asyncpg
import pytest

from adapters.clock import SystemClock
from adapters.stores.postgres import PostgresOptions, PostgresTaskStore
from adapters.stores.postgres import store as postgres_store
from adapters.stores.postgres.hints import Hints
from adapters.stores.postgres.opening import NEWEST
from adapters.stores.postgres.store import SESSION, SQL
from adapters.testing.postgres_schema import connected
from adapters.testing.store_case import NO_LIMITS, RESULT, WORKER, new_task
from domain.errors import StoreUnusable
from domain.events import Output
from domain.ports import Accepted, Completed, Entry, Replayed
from domain.task import ANONYMOUS, Idempotency, TaskStatus

DEADLINE = 10.0
LEASE = 30.0


def node(dsn: str) -> PostgresTaskStore:
    return PostgresTaskStore(PostgresOptions(dsn=dsn, pool_size=4), SystemClock())


async def test_two_nodes_that_claim_at_once_get_each_task_once(dsn: str) -> None:
    async with node(dsn) as one, node(dsn) as other:
        await one.submit([new_task() for _ in range(200)], NO_LIMITS)
        claims = await asyncio.gather(
            *(store.claim(WORKER, {"echo": 10}, LEASE) for _ in range(20) for store in (one, other))
        )
        fences = [claim.fence for found in claims for claim in found]
        assert len(fences) == len(set(fences)) == 200
        assert (await other.counts()).running == 200


async def test_what_the_last_try_finds_out_about_a_key_that_another_node_used_is_the_answer(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_store, "_TRIES", 1)
    task = new_task(idempotency=Idempotency("key", b"print"))
    same = new_task(idempotency=Idempotency("key", b"print"))
    async with node(dsn) as one, node(dsn) as other:
        [accepted] = await one.submit([task], NO_LIMITS)
        assert isinstance(accepted, Accepted)
        assert await other.submit([same], NO_LIMITS) == [Replayed(accepted.task)]


async def test_a_task_submitted_on_one_node_wakes_the_other(dsn: str) -> None:
    async with node(dsn) as one, node(dsn) as other:
        told = asyncio.Event()
        other.on_work(told.set)
        async with asyncio.timeout(DEADLINE):
            while not told.is_set():  # its connection for hints may still be on its way
                await one.submit([new_task()], NO_LIMITS)
                await asyncio.wait([asyncio.create_task(told.wait())], timeout=0.05)


async def test_what_is_watched_on_one_node_is_told_by_the_other(dsn: str) -> None:
    async with node(dsn) as reading, node(dsn) as working:
        [answer] = await working.submit([new_task()], NO_LIMITS)
        assert isinstance(answer, Accepted)
        task_id, told = answer.task.id, asyncio.Event()
        reading.on_events(lambda task_ids: told.set() if task_id in task_ids else None)
        async with asyncio.timeout(DEADLINE):
            while not working.is_watched(task_id):
                reading.watch([task_id])
                await reading.check()
            [claim] = await working.claim(WORKER, {"echo": 1}, LEASE)
            for number in itertools.count():
                piece = Output("a", number, 1, number + 1)
                await working.append([Entry(claim.fence, number, [piece])])
                await asyncio.wait([asyncio.create_task(told.wait())], timeout=0.05)
                if told.is_set():
                    break


async def test_a_hint_that_comes_with_the_end_of_its_connection_does_no_harm(dsn: str) -> None:
    made: list[asyncpg.Connection] = []
    broken: list[object] = []
    told = asyncio.Event()

    async def connect() -> asyncpg.Connection:
        made.append(await asyncpg.connect(dsn))
        return made[-1]

    def end_connection() -> None:
        made[0].terminate()
        told.set()

    asyncio.get_running_loop().set_exception_handler(lambda _, context: broken.append(context))
    async with connected(dsn) as server, Hints(connect, time.monotonic) as hints:
        hints.on_work(end_connection)
        hints.on_cancel(end_connection)
        async with asyncio.timeout(DEADLINE):
            while not told.is_set():  # until it listens; two hints of one commit come together
                await server.execute("NOTIFY task_hint, 'w'; NOTIFY task_hint, 'c'")
                await asyncio.wait([asyncio.create_task(told.wait())], timeout=0.05)
    assert broken == []


async def test_a_task_that_another_node_took_over_refuses_the_first_ones_result(dsn: str) -> None:
    async with node(dsn) as one, node(dsn) as other:
        await one.submit([new_task()], NO_LIMITS)
        [lost] = await one.claim("one", {"echo": 1}, lease_seconds=0)
        assert [taken.fence for taken in await other.reclaim(5, 10)] == [lost.fence]
        [taken] = await other.claim("other", {"echo": 1}, LEASE)
        assert await one.renew([lost.fence], LEASE) == set()
        assert await one.settle([Completed(lost.fence, b'{"output":"late"}', None)]) == [None]
        assert await other.settle([Completed(taken.fence, RESULT, None)]) == [TaskStatus.COMPLETED]
        task = await one.get(lost.task.id, ANONYMOUS)
        assert task is not None
        assert (task.status, task.attempt, task.result) == (TaskStatus.COMPLETED, 2, RESULT)


async def test_a_claim_is_not_compiled_however_much_the_planner_expects_of_it(dsn: str) -> None:
    async with node(dsn):
        plan = await plan_of_a_claim(dsn, {"jit_above_cost": "0"})
    assert "JIT:" not in plan, "\n".join(plan)


async def plan_of_a_claim(dsn: str, settings: dict[str, str]) -> list[str]:
    """The lines of EXPLAIN, in a session of the store's own kind but for these settings."""
    async with connected(dsn, **SESSION, **settings) as server:
        explained = f"EXPLAIN {SQL['claim_tasks']}"
        return [line for [line] in await server.fetch(explained, WORKER, ["echo"], [8], 30_000_000)]


async def test_a_server_that_is_not_there_cannot_be_used() -> None:
    with pytest.raises(StoreUnusable):
        async with node("postgresql://postgres@127.0.0.1:1/test"):
            pass


async def test_a_newer_schema_is_refused_and_left_alone(dsn: str) -> None:
    async with node(dsn):
        pass
    async with connected(dsn) as server:
        await server.execute("INSERT INTO task_schema (version) VALUES ($1)", NEWEST + 1)
        with pytest.raises(StoreUnusable, match=f"version {NEWEST + 1}"):
            async with node(dsn):
                pass
        assert await server.fetchval("SELECT count(*) FROM task_schema") == NEWEST + 1


async def test_without_migrating_an_empty_schema_is_refused_and_left_empty(dsn: str) -> None:
    with pytest.raises(StoreUnusable, match="task-agent migrate"):
        async with PostgresTaskStore(
            PostgresOptions(dsn=dsn, migrate_on_start=False), SystemClock()
        ):
            pass
    async with connected(dsn) as server:
        assert await server.fetchval("SELECT to_regclass('task_schema')") is None


async def test_nodes_that_open_an_empty_database_at_once_all_find_the_schema(dsn: str) -> None:
    async def open_and_look() -> int:
        async with node(dsn) as store:
            return (await store.counts()).total

    assert await asyncio.gather(*(open_and_look() for _ in range(5))) == [0] * 5
