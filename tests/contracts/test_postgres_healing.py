"""A PostgreSQL that goes away, falls silent, is full or restarts; and what the store makes of it.

Most tests look at the server through a `Link` that they can break. What they do to the server
itself goes around it. A restart happens to a server of the test's own.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Self
from urllib.parse import urlsplit

import asyncpg
import pytest

from adapters.clock import SystemClock
from adapters.stores.postgres import PostgresOptions, PostgresTaskStore, connections, sharing
from adapters.stores.postgres import store as postgres_store
from adapters.testing.postgres_schema import connected
from adapters.testing.store_case import KEEP_ALL, NO_LIMITS, RESULT, WORKER, new_task
from domain.errors import StoreUnavailable
from domain.execution import Execution
from domain.inference import InferenceRequest, InferenceResult, Piece
from domain.ports import Completed, Fence
from domain.retry import RetryPolicy
from domain.task import ANONYMOUS, Task, TaskStatus
from entrypoints.readiness import Readiness
from entrypoints.worker.dispatcher import Dispatcher, DispatcherOptions
from entrypoints.worker.maintenance import Maintenance, MaintenanceOptions

LEASE = 30.0
DEADLINE = 30.0
SHORT_LEASE = 5.0


class Link:
    """A way to the server that can be broken. What it carried when it broke stays lost."""

    def __init__(self, dsn: str) -> None:
        self._server = urlsplit(dsn)
        self._carried: set[asyncio.StreamWriter] = set()
        self._silenced: set[asyncio.StreamWriter] = set()
        self._is_silent = False
        self._is_refusing = False
        self._to_lose = b""
        self._losing: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._listening = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._listening.sockets[0].getsockname()[1]
        self.dsn = self._server._replace(netloc=f"postgres@127.0.0.1:{port}").geturl()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listening.close()
        self.cut()

    def silence(self) -> None:
        """Carry nothing more; whoever connects waits for ever."""
        self._is_silent = True
        self._silenced |= self._carried

    def cut(self) -> None:
        """End every connection."""
        for writer in self._carried:
            writer.transport.abort()

    def refuse(self) -> None:
        """End every connection, and each new one too."""
        self._is_refusing = True
        self.cut()

    def lose_next_answer(self, task_id: str) -> None:
        """Let the next statement with this id reach the server, and cut instead of its answer."""
        self._to_lose = task_id.encode()

    @property
    def is_to_lose(self) -> bool:
        """Whether that statement is still to come."""
        return bool(self._to_lose)

    def mend(self) -> None:
        """Carry what connects from now on."""
        self._is_silent = self._is_refusing = False

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_refusing:
            writer.transport.abort()
            return
        there = await asyncio.open_connection(self._server.hostname, self._server.port)
        ends = {writer, there[1]}
        self._carried |= ends
        if self._is_silent:
            self._silenced |= ends
        with suppress(OSError):
            await asyncio.gather(
                self._carry_calls(reader, there[1], writer), self._carry_answers(there[0], writer)
            )
        self._carried -= ends
        for end in ends:
            end.transport.abort()

    async def _carry_calls(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answers: asyncio.StreamWriter,
    ) -> None:
        while data := await reader.read(65_536):
            if self.is_to_lose and data.startswith(b"B") and self._to_lose in data:  # a "Bind"
                self._to_lose = b""
                self._losing.add(answers)
            if writer not in self._silenced:
                writer.write(data)
        raise ConnectionResetError

    async def _carry_answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while (data := await reader.read(65_536)) and writer not in self._losing:
            if writer not in self._silenced:
                writer.write(data)
        raise ConnectionResetError


@asynccontextmanager
async def store_at(dsn: str, pool_size: int = 4) -> AsyncIterator[PostgresTaskStore]:
    options = PostgresOptions(dsn=dsn, pool_size=pool_size)
    async with PostgresTaskStore(options, SystemClock()) as store:
        yield store


@pytest.fixture(autouse=True)
def steady_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a link loses is what the test asked for, and no other statement that went before it."""
    monkeypatch.setattr(connections, "PLANS_KEPT_SECONDS", float("inf"))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call waits for an answer longer than a second."""
    monkeypatch.setattr(postgres_store, "ANSWER_SECONDS", 1.0)


async def submitted(store: PostgresTaskStore) -> Task:
    [answer] = await store.submit([new_task()], NO_LIMITS)
    return answer.task  # type: ignore[union-attr] # no limits: never full


async def started(store: PostgresTaskStore) -> Fence:
    await submitted(store)
    [claim] = await store.claim(WORKER, {"echo": 1}, LEASE)
    return claim.fence


async def until(what: Callable[[], Awaitable[bool]], seconds: float = DEADLINE) -> None:
    async with asyncio.timeout(seconds):
        while True:
            if await what():
                return
            await asyncio.sleep(0.02)


async def healed(call: Callable[[], Awaitable[object]]) -> None:
    """Wait until the call is answered."""

    async def is_answered() -> bool:
        with suppress(StoreUnavailable):
            await call()
            return True
        return False

    await until(is_answered)


# --- connections that are lost -------------------------------------------------------------------


async def test_no_call_notices_that_the_server_ended_all_connections(dsn):
    async with store_at(dsn) as store, connected(dsn) as server:
        fence = await started(store)
        for call in (
            lambda: submitted(store),
            lambda: store.get(fence.task_id, ANONYMOUS),
            store.check,
            lambda: store.renew([fence], LEASE),
            lambda: store.settle([Completed(fence, RESULT, None)]),
            lambda: store.claim(WORKER, {"echo": 1}, LEASE),
            lambda: store.reclaim(5, 10),
            lambda: store.purge(KEEP_ALL, 10),
            store.counts,
        ):
            await end_connections(server)
            await call()
        counts = await store.counts()
        assert (counts.running, counts.completed, counts.total) == (1, 1, 2)


async def end_connections(server: asyncpg.Connection) -> None:
    await server.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


async def test_a_call_whose_answer_was_lost_is_sent_again(dsn):
    async with Link(dsn) as link, store_at(link.dsn) as store:
        fence = await started(store)
        await store.get(fence.task_id, ANONYMOUS)
        await store.renew([fence], LEASE)
        link.lose_next_answer(fence.task_id)
        assert await store.get(fence.task_id, ANONYMOUS) is not None
        link.lose_next_answer(fence.task_id)
        assert await store.renew([fence], LEASE) == {fence}
        assert not link.is_to_lose


async def test_a_submit_whose_answer_was_lost_fails_and_its_task_is_there_once(dsn):
    async with Link(dsn) as link, store_at(link.dsn) as store:
        await submitted(store)
        task = new_task()
        link.lose_next_answer(task.id)
        with pytest.raises(StoreUnavailable):
            await store.submit([task], NO_LIMITS)
        assert await store.get(task.id, ANONYMOUS) is not None
        assert (await store.counts()).pending == 2


async def test_a_settle_whose_answer_was_lost_took_effect_and_the_one_sent_again_is_refused(dsn):
    async with Link(dsn) as link, store_at(link.dsn) as store:
        fence = await started(store)
        link.lose_next_answer(fence.task_id)
        assert await store.settle([Completed(fence, RESULT, None)]) == [None]
        assert not link.is_to_lose
        task = await store.get(fence.task_id, ANONYMOUS)
        assert task is not None
        assert (task.status, task.attempts[-1].outcome) == ("completed", "completed")


async def test_a_server_that_cannot_be_reached_is_unavailable_until_it_can(dsn):
    async with Link(dsn) as link, store_at(link.dsn) as store:
        fence = await started(store)
        link.refuse()
        for call in (lambda: submitted(store), lambda: store.renew([fence], LEASE), store.check):
            with pytest.raises(StoreUnavailable):
                await call()
        link.mend()
        await submitted(store)
        assert await store.renew([fence], LEASE) == {fence}
        await store.check()


# --- a link that is silent -----------------------------------------------------------------------


async def test_a_silent_link_is_given_up_with_all_that_went_over_it(dsn, impatient):
    async with Link(dsn) as link, store_at(link.dsn) as store:
        task = await submitted(store)
        await asyncio.gather(*(store.get(task.id, ANONYMOUS) for _ in range(4)))
        link.silence()
        with pytest.raises(StoreUnavailable):
            await store.get(task.id, ANONYMOUS)
        link.mend()
        found = await asyncio.gather(*(store.get(task.id, ANONYMOUS) for _ in range(4)))
        assert found == [task] * 4


async def test_a_renewal_gives_up_in_time_for_another_one(dsn):
    async with Link(dsn) as link, store_at(link.dsn) as store:
        fence = await started(store)
        await store.renew([fence], LEASE)
        link.silence()
        async with asyncio.timeout(SHORT_LEASE):
            with pytest.raises(StoreUnavailable):
                await store.renew([fence], SHORT_LEASE)
        link.mend()
        assert await store.renew([fence], LEASE) == {fence}


async def test_submits_that_wait_behind_a_silent_one_give_up_and_are_not_sent_later(
    dsn, impatient, monkeypatch
):
    monkeypatch.setattr(sharing, "_PATIENCE_SECONDS", 0.2)
    async with Link(dsn) as link, store_at(link.dsn) as store:
        await submitted(store)
        link.silence()
        first = asyncio.create_task(submitted(store))
        await asyncio.sleep(0)
        behind = new_task()
        answers = await asyncio.gather(
            first, store.submit([behind], NO_LIMITS), return_exceptions=True
        )
        assert "no answer for 0.2 seconds" in str(answers[1])
        link.mend()
        await healed(lambda: submitted(store))
        assert await store.get(behind.id, ANONYMOUS) is None


async def test_readiness_tells_within_five_seconds_that_the_link_is_silent(dsn):
    readiness = Readiness(SystemClock().monotonic)
    async with Link(dsn) as link, store_at(link.dsn) as store, asyncio.TaskGroup() as group:
        running = group.create_task(upkeep(store, readiness).run())
        await until(answering(readiness, is_wrong=False))
        link.silence()
        await until(answering(readiness, is_wrong=True), seconds=5)
        link.mend()
        await until(answering(readiness, is_wrong=False))
        running.cancel()


def upkeep(store: PostgresTaskStore, readiness: Readiness) -> Maintenance:
    readiness.clear("start")
    options = MaintenanceOptions(
        retention=KEEP_ALL, sweep_seconds=3600, poll_seconds=0.5, max_crashes=5
    )
    return Maintenance(store, options, readiness)


def answering(readiness: Readiness, *, is_wrong: bool) -> Callable[[], Awaitable[bool]]:
    """Whether the probe of the store has found out that it is wrong, or right."""

    async def is_so() -> bool:
        return ("store" in readiness.faults()) == is_wrong

    return is_so


async def test_a_worker_behind_a_silent_link_stops_before_its_lease_ends_and_then_goes_on(dsn):
    executor, readiness = Stubborn(), Readiness(SystemClock().monotonic)
    async with Link(dsn) as link, store_at(link.dsn) as store, asyncio.TaskGroup() as group:
        dispatcher = Dispatcher(
            store,
            Execution({"echo": executor}, RetryPolicy(1.0, 60.0), 1_000, 5, roll=lambda: 0.5),
            DispatcherOptions(
                worker=WORKER,
                max_concurrent_tasks=1,
                executor_limits={"echo": 1},
                lease_seconds=SHORT_LEASE,
                poll_seconds=0.5,
            ),
            SystemClock(),
            readiness,
        )
        loops = [group.create_task(loop.run()) for loop in (dispatcher, upkeep(store, readiness))]
        task = await submitted(store)
        async with asyncio.timeout(DEADLINE), connected(dsn) as server:
            await executor.began.wait()
            link.silence()
            await executor.stopped.wait()
            assert await server.fetchval("SELECT lease_until > task_now() FROM task")
        link.mend()

        async def is_done() -> bool:
            with suppress(StoreUnavailable):
                found = await store.get(task.id, ANONYMOUS)
                return found is not None and found.done
            return False

        await until(is_done)
        found = await store.get(task.id, ANONYMOUS)
        assert found is not None
        assert (found.status, found.attempt, found.crashes) == ("completed", 2, 1)
        for loop in loops:
            loop.cancel()


class Stubborn:
    """Never ends the first attempt of its own will; ends the others at once."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.stopped = asyncio.Event()

    def room(self) -> None:
        """See `Executor.room`."""

    async def check(self) -> None:
        """See `Executor.check`."""

    async def run(self, request: InferenceRequest) -> AsyncGenerator[Piece, None]:
        self.began.set()
        try:
            if request.attempt == 1:
                await asyncio.Event().wait()
        finally:
            self.stopped.set()
        yield InferenceResult("done")


# --- a server that is busy or full ---------------------------------------------------------------


async def test_leases_are_renewed_while_slow_statements_hold_all_connections(dsn, impatient):
    async with store_at(dsn, pool_size=1) as store, connected(dsn) as server:
        fence = await started(store)
        async with server.transaction():
            await server.execute("LOCK TABLE task_count")
            held = asyncio.gather(submitted(store), store.check(), return_exceptions=True)
            assert await store.renew([fence], LEASE) == {fence}
            assert not held.done()
            assert [type(answer) for answer in await held] == [StoreUnavailable] * 2
            assert await store.renew([fence], LEASE) == {fence}
        await submitted(store)


LOCK = "SELECT number FROM task WHERE id = $1 FOR UPDATE"


@pytest.mark.parametrize("write", ["renew", "settle"])
async def test_writes_of_workers_lock_older_tasks_first_so_that_none_waits_for_another(dsn, write):
    planned_as_for_many_tasks = f"{dsn}&enable_hashjoin=off&enable_mergejoin=off&enable_seqscan=off"
    async with (
        store_at(planned_as_for_many_tasks) as store,
        connected(dsn) as server,
        connected(dsn) as beside,
    ):
        older, newer = await started(store), await started(store)
        async with server.transaction():
            await server.execute(LOCK, older.task_id)
            if write == "renew":
                writing: Any = store.renew([newer, older], LEASE)
            else:
                writing = store.settle([Completed(each, RESULT, None) for each in (newer, older)])
            task = asyncio.create_task(writing)
            await until(lambda: waits_for_a_lock(beside))
            assert await beside.fetch(f"{LOCK} SKIP LOCKED", newer.task_id)
        await task


async def waits_for_a_lock(server: asyncpg.Connection) -> bool:
    waiting = "SELECT FROM pg_locks WHERE NOT granted AND locktype IN ('transactionid', 'tuple')"
    return bool(await server.fetch(waiting))


async def test_a_deadlock_with_somebody_else_is_tried_again(dsn):
    async with store_at(dsn) as store, connected(dsn) as server, connected(dsn) as beside:
        fences = [await started(store), await started(store)]
        async with server.transaction():
            await server.execute("SET LOCAL deadlock_timeout = '1h'")  # so it is not the victim
            await server.execute(LOCK, fences[1].task_id)
            settling = asyncio.create_task(
                store.settle([Completed(fence, RESULT, None) for fence in fences])
            )
            await until(lambda: waits_for_a_lock(beside))
            await server.execute(LOCK, fences[0].task_id)
        assert await settling == [TaskStatus.COMPLETED] * 2


async def test_a_serialization_failure_is_tried_again(dsn):
    strict = f"{dsn}&default_transaction_isolation=repeatable%20read"
    async with store_at(strict) as store, connected(dsn) as server:
        await submitted(store)
        async with server.transaction():
            await server.execute("UPDATE task_count SET pending = pending")
            submitting = asyncio.create_task(submitted(store))
            await until(lambda: waits_for_a_lock(server))
        await submitting
        assert (await store.counts()).pending == 2


# --- a server of our own -------------------------------------------------------------------------


@pytest.fixture
def own_server(postgres_server: Any) -> Iterator[Any]:
    """A server that this test may stop, with room for few connections."""
    postgres_server.stop()
    postgres_server.start(max_connections=6, superuser_reserved_connections=0)
    yield postgres_server
    postgres_server.stop()
    postgres_server.start()


async def test_a_server_that_restarts_is_unavailable_meanwhile_and_nothing_is_lost(own_server):
    async with store_at(own_server.dsn) as store:
        fence = await started(store)
        await asyncio.to_thread(own_server.stop)
        for call in (lambda: submitted(store), lambda: store.renew([fence], LEASE), store.check):
            with pytest.raises(StoreUnavailable):
                await call()
        await asyncio.to_thread(own_server.start)
        await healed(store.check)
        assert await store.renew([fence], LEASE) == {fence}
        assert await store.settle([Completed(fence, RESULT, None)]) == [TaskStatus.COMPLETED]


async def test_a_server_without_a_free_place_takes_no_tasks_but_renews_leases(own_server):
    async with store_at(own_server.dsn) as other:
        fence = await started(other)
    async with store_at(own_server.dsn) as store:
        others = await connections_until_it_is_full(own_server.dsn)
        with pytest.raises(StoreUnavailable, match="TooManyConnections"):
            await submitted(store)
        assert await store.renew([fence], LEASE) == {fence}
        for connection in others:
            await connection.close()
        await healed(lambda: submitted(store))


async def connections_until_it_is_full(dsn: str) -> list[asyncpg.Connection]:
    made: list[asyncpg.Connection] = []
    with suppress(asyncpg.TooManyConnectionsError):
        while True:
            made.append(await asyncpg.connect(dsn))
    return made
