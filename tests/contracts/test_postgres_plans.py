"""How PostgreSQL finds the tasks of each statement, with many finished and many pending ones.

The plans are those of the statements and values that the store really sends: once with the values
known, as for the first calls of a connection, and once for any values, as it plans them later.
"""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
from msgspec.structs import replace

from adapters.clock import SystemClock
from adapters.stores.postgres import PostgresOptions, PostgresTaskStore, connections
from adapters.stores.postgres.connections import Connections
from adapters.stores.postgres.store import SQL
from adapters.testing.postgres_schema import connected
from adapters.testing.store_case import RESULT, new_task
from domain.events import Output
from domain.inference import Routes
from domain.ports import Completed, Entry, SubmitLimits
from domain.query import TaskQuery
from domain.retention import RetentionPolicy
from domain.task import ANONYMOUS, Idempotency

TORTURE = pytest.mark.torture
OF_SMALL_TABLES = {"task_count_pkey", "task_usage_pkey"}
TABLES = ("task", "task_payload", "task_result")
EVERYTHING = SubmitLimits(10_000_000, RetentionPolicy(0, 0))
RUNNING = 20
LEASE = 30.0
OLD_AND_MANY = RetentionPolicy(retention_seconds=3600, max_tasks=1000)

INDEXES = {
    "submit_tasks": {"task_idempotency"},
    "get_task": {"task_id_key", "task_result_pkey"},
    "claim_tasks": {"task_in_turn", "task_waiting", "task_pkey", "task_payload_pkey"},
    "renew_leases": {"task_id_key", "task_pkey"},
    "settle_attempts": {"task_id_key", "task_pkey", "task_event_pkey"},
    "reclaim_tasks": {"task_running", "task_pkey", "task_event_pkey"},
    "purge_tasks": {
        "task_finished",
        "task_finished_by_creation",
        "task_pkey",
        "task_payload_pkey",
        "task_result_pkey",
        "task_event_pkey",
    },
    "reroute_tasks": {"task_in_turn", "task_waiting", "task_pkey"},
    "get_payload": {"task_id_key", "task_payload_pkey"},
    "find_newest_first": {"task_by_owner", "task_pkey", "task_payload_pkey", "task_result_pkey"},
    "find_oldest_first": {"task_by_owner", "task_pkey", "task_payload_pkey", "task_result_pkey"},
    "find_submitted": {"task_idempotency", "task_result_pkey"},
    "find_standings": {"task_id_key"},
    "read_log": {"task_id_key", "task_event_pkey", "task_result_pkey"},
    "append_events": {"task_id_key", "task_pkey"},
    "find_interruptions": {"task_id_key"},
    "request_cancel": {"task_id_key", "task_pkey"},
    "delete_task": {"task_id_key", "task_payload_pkey", "task_result_pkey", "task_event_pkey"},
    "expire_tasks": {"task_deadline", "task_pkey"},
    "queue_position": {"task_id_key", "task_in_turn", "task_waiting"},
    "backlog": {"task_in_turn", "task_waiting"},
    "view_queue": {"task_in_turn", "task_waiting", "task_running"},
    "view_workers": set(),
    "view_usage": set(),
    "announce_worker": set(),
    "count_tasks": set(),
    "check_store": set(),
}

FILL = """
WITH made AS (
    SELECT n, CASE WHEN n <= $1 THEN 'completed'
                   WHEN n <= $1 + $2 THEN 'running'
                   ELSE 'pending' END AS status
      FROM generate_series(1, $1::int + $2::int + $3::int) AS n
), stored AS (
    INSERT INTO task (id, owner, status, executor, model, metadata, timeout_seconds, max_attempts,
                      rank, created_at, attempt, started_at, completed_at, worker, lease_until)
    SELECT md5(n::text)::uuid, 'anonymous', status, CASE WHEN n % 2 = 0 THEN 'one' ELSE 'other' END,
           'small', '{}', 300, 3, n, n, CASE status WHEN 'pending' THEN 0 ELSE 1 END,
           CASE WHEN status <> 'pending' THEN n END, CASE status WHEN 'completed' THEN n END,
           CASE status WHEN 'running' THEN 'gone' END, CASE status WHEN 'running' THEN n END
      FROM made
     ORDER BY n
    RETURNING number, status
), paid AS (
    INSERT INTO task_payload (number, input, options) SELECT number, '"hello"', '{}' FROM stored
), kept AS (
    INSERT INTO task_result (number, result)
    SELECT number, '{"output":"hello"}' FROM stored WHERE status = 'completed'
)
UPDATE task_count SET completed = $1, running = $2, pending = $3 WHERE slot = 0
"""


@pytest.fixture(params=[(50_000, 5_000), pytest.param((1_000_000, 100_000), marks=TORTURE)])
def filled(request: pytest.FixtureRequest, dsn: str) -> str:
    """A store with so many finished and so many pending tasks, and its statistics."""
    asyncio.run(fill(dsn, *request.param))
    return dsn


async def fill(dsn: str, finished: int, pending: int) -> None:
    async with PostgresTaskStore(PostgresOptions(dsn=dsn), SystemClock()):
        pass
    async with connected(dsn) as server:
        await server.fetch(FILL, finished, RUNNING, pending)
        for table in TABLES:
            await server.execute(f"ANALYZE {table}")


async def test_each_statement_finds_its_tasks_by_an_index(filled, monkeypatch):
    sent = await statements_of_a_life(filled, monkeypatch)
    assert sent.keys() == SQL.keys() == INDEXES.keys()
    async with connected(filled) as server:
        for name, values in sent.items():
            prepared = await server.prepare(SQL[name])
            check_plan(name, await prepared.explain(*values))
            check_plan(name, await plan_for_any_values(server, name, len(values)))


async def statements_of_a_life(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, tuple[object, ...]]:
    """What the store sends when each of its methods is called, by the name of the statement."""
    names = {SQL[name]: name for name in SQL}
    sent: dict[str, tuple[object, ...]] = {}
    send = Connections.fetch

    async def note(self: Connections, text: str, *values: object) -> list[asyncpg.Record]:
        sent[names[text]] = values
        return await send(self, text, *values)

    monkeypatch.setattr(Connections, "fetch", note)
    async with PostgresTaskStore(PostgresOptions(dsn=dsn), SystemClock()) as store:
        await store.check()
        await store.counts()
        task = new_task(executor="one")
        await store.submit([task], SubmitLimits(10_000_000, OLD_AND_MANY))
        await store.get(task.id, ANONYMOUS)
        claims = await store.claim("worker", {"one": 8, "other": 8}, LEASE)
        fences = [claim.fence for claim in claims]
        await store.renew(fences, LEASE)
        await store.append([Entry(fence, 0, [Output("a", 0, 1, 1)]) for fence in fences])
        await store.settle([Completed(fence, RESULT, None) for fence in fences])
        await store.reclaim(5, 100)
        await store.purge(OLD_AND_MANY, 100)
        await store.reroute(["one"], Routes({"small": "one"}, "one"))
        await store.payload(task.id, ANONYMOUS)
        query = TaskQuery(owner=ANONYMOUS, with_result=True, with_input=True)
        await store.find(query)
        await store.find(replace(query, newest_first=False))
        await store.standings([task.id])
        await store.log(task.id, ANONYMOUS, 0, 100)
        await store.interruptions(fences)
        await store.queue_position(new_task().accepted(0))
        await store.backlog_seconds()
        await store.queue(ANONYMOUS)
        await store.expire(100)
        await store.announce("worker", ["one"], 15)
        await submit_the_same_twice(store)
        await store.request_cancel(task.id, ANONYMOUS)
        await store.delete(task.id, ANONYMOUS)
    return sent


async def submit_the_same_twice(store: PostgresTaskStore) -> None:
    for _ in range(2):
        new = new_task(idempotency=Idempotency("key", b"print"))
        await store.submit([new], SubmitLimits(10_000_000, OLD_AND_MANY))


async def plan_for_any_values(server: asyncpg.Connection, name: str, values: int) -> Any:
    await server.execute("SET plan_cache_mode = force_generic_plan")
    await server.execute(f"PREPARE {name} AS {SQL[name]}")
    arguments = f"({', '.join(['NULL'] * values)})" if values else ""
    plan = await server.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE {name} {arguments}")
    await server.execute("RESET plan_cache_mode")
    return json.loads(plan)


def check_plan(name: str, plan: Any) -> None:
    nodes = list(nodes_of(plan[0]["Plan"]))
    scanned = {node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"}
    used = {node["Index Name"] for node in nodes if "Index Name" in node} - OF_SMALL_TABLES
    shown = json.dumps(plan, indent=1)
    assert not scanned & set(TABLES), f"{name} reads all of {scanned}: {shown}"
    assert used == INDEXES[name], f"{name}: {used} {shown}"


def nodes_of(node: Any) -> Iterator[Any]:
    yield node
    for below in node.get("Plans", []):
        yield from nodes_of(below)


BURST = 4_000
ROWS_READ = """
SELECT sum(seq_tup_read)::bigint AS read, sum(idx_tup_fetch)::bigint AS found
  FROM pg_stat_user_tables WHERE schemaname = current_schema() AND relname = ANY ($1)
"""
IDLE_ROUNDS = 12  # more than the five after which PostgreSQL settles for one plan


async def test_who_idled_on_empty_tables_does_not_read_all_of_them_once_they_are_full(
    dsn, monkeypatch
):
    monkeypatch.setattr(connections, "PLANS_KEPT_SECONDS", 0.0)
    options = PostgresOptions(dsn=dsn)
    async with (
        PostgresTaskStore(options, SystemClock()) as idle,
        PostgresTaskStore(options, SystemClock()) as busy,
        connected(dsn) as server,
    ):
        await server.execute(f"VACUUM ANALYZE {', '.join(TABLES)}")
        for _ in range(IDLE_ROUNDS):
            assert await live_through(idle) == 0
        tasks = [new_task() for _ in range(BURST)]
        for start in range(0, BURST, 500):
            await busy.submit(tasks[start : start + 500], EVERYTHING)
        read_before, found_before = await rows_read(server)
        taken = sum([await live_through(idle) for _ in range(IDLE_ROUNDS)])
        read, _ = await rows_read(server, found_before + taken, idle)
    assert taken == IDLE_ROUNDS * 8
    assert read - read_before < BURST, "tables were read from one end to the other"


async def live_through(store: PostgresTaskStore) -> int:
    """What workers and clients do all the time; gives how many tasks were taken."""
    nobody = new_task().id
    claims = await store.claim("worker", {"echo": 8}, LEASE)
    await store.renew([claim.fence for claim in claims], LEASE)
    await store.settle([Completed(claim.fence, RESULT, None) for claim in claims])
    await store.standings([nobody])
    await store.get(nobody, ANONYMOUS)
    await store.request_cancel(nobody, ANONYMOUS)
    return len(claims)


async def rows_read(
    server: asyncpg.Connection, at_least: int = 0, store: PostgresTaskStore | None = None
) -> tuple[int, int]:
    """Rows read in passing, and rows found by an index, in all; once so many were found."""
    async with asyncio.timeout(60):
        while True:
            row = await server.fetchrow(ROWS_READ, list(TABLES))
            if row["found"] >= at_least:
                return row["read"], row["found"]
            assert store is not None
            await live_through(store)  # a connection tells what it read when it is used again
