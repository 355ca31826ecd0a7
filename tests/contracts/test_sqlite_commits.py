"""When SQLite's writes are committed, how many share a commit, and what spoils what."""

import asyncio
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from adapters.stores.sqlite import SqliteOptions, SqliteTaskStore, batches, tables
from adapters.testing.fakes import FakeClock
from adapters.testing.store_case import LEASE, NO_LIMITS, RESULT, USAGE, WORKER, ids, new_task
from domain.errors import StoreUnavailable
from domain.ports import Accepted, Completed, HandedBack, Replayed, SubmitLimits, TaskCounts
from domain.retention import RetentionPolicy
from domain.task import ANONYMOUS, Idempotency, NewTask, TaskStatus

Scenario = Callable[[SqliteTaskStore], Awaitable[None]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def play(path: Path, clock: FakeClock) -> Callable[[Scenario], None]:
    """Runs a scenario on an open store."""

    async def opened(scenario: Scenario) -> None:
        async with SqliteTaskStore(SqliteOptions(path=str(path)), clock) as store:
            await scenario(store)

    return lambda scenario: asyncio.run(opened(scenario))


Play = Callable[[Scenario], None]


@asynccontextmanager
async def gathering(store: SqliteTaskStore) -> AsyncIterator[None]:
    """Keeps the writer busy, so that whatever is called meanwhile waits for the next commit."""
    busy, go_on = Event(), Event()

    def wait() -> None:
        busy.set()
        go_on.wait()

    waiting = asyncio.create_task(store._writer.call(wait))
    await asyncio.to_thread(busy.wait)
    yield
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(waiting, return_exceptions=True)


@contextmanager
def statements(store: SqliteTaskStore) -> Any:
    """The statements that the writer runs meanwhile."""
    seen: list[str] = []
    store._writing.set_trace_callback(seen.append)
    yield seen
    store._writing.set_trace_callback(None)


def submit(store: SqliteTaskStore, *tasks: NewTask) -> "asyncio.Task[Any]":
    return asyncio.create_task(store.submit(tasks or [new_task()], NO_LIMITS))


def test_a_submit_is_answered_after_its_commit(play: Play, path: Path) -> None:
    async def scenario(store: SqliteTaskStore) -> None:
        with closing(sqlite3.connect(path)) as other:
            for stored in range(1, 101):
                await store.submit([new_task()], NO_LIMITS)
                assert other.execute("SELECT count(*) FROM task").fetchone() == (stored,)

    play(scenario)


def test_a_read_sees_nothing_of_a_transaction_that_is_not_committed(play: Play) -> None:
    async def scenario(store: SqliteTaskStore) -> None:
        [claim] = await submitted_and_claimed(store)
        go_on, written = Event(), Event()

        def settle_slowly() -> None:
            store._tables.settle([Completed(claim.fence, RESULT, USAGE)])
            written.set()
            go_on.wait()

        settling = asyncio.create_task(store._writer.call(settle_slowly))
        await asyncio.to_thread(written.wait)
        task = await store.get(claim.task.id, ANONYMOUS)
        assert task is not None
        assert task.status is TaskStatus.RUNNING
        assert await store.counts() == TaskCounts(running=1)
        go_on.set()
        await settling
        assert await store.counts() == TaskCounts(completed=1)

    play(scenario)


async def submitted_and_claimed(store: SqliteTaskStore, tasks: int = 1) -> list[Any]:
    await store.submit([new_task() for _ in range(tasks)], NO_LIMITS)
    return await store.claim(WORKER, {"echo": tasks}, LEASE)


def test_all_submits_that_wait_share_one_commit(play: Play) -> None:
    async def scenario(store: SqliteTaskStore) -> None:
        with statements(store) as seen:
            async with gathering(store):
                waiting = [submit(store) for _ in range(64)]
            await asyncio.gather(*waiting)
        assert seen.count("COMMIT") == 2  # of those that waited, and of the one they waited for

    play(scenario)


def test_a_task_that_cannot_be_stored_spoils_none_of_its_neighbours(play: Play) -> None:
    async def scenario(store: SqliteTaskStore) -> None:
        [running] = await submitted_and_claimed(store)
        twice, unspeakable = new_task(id=running.task.id), new_task(metadata={"key": "\ud800"})
        good = [new_task() for _ in range(4)]
        async with gathering(store):
            waiting = [submit(store, task) for task in (*good[:2], twice, unspeakable, *good[2:])]
            settling = asyncio.create_task(store.settle([Completed(running.fence, RESULT, USAGE)]))
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert [isinstance(answer, Exception) for answer in answers] == [0, 0, 1, 1, 0, 0]
        assert isinstance(answers[2], StoreUnavailable)
        assert await settling == [TaskStatus.COMPLETED]
        assert await store.counts() == TaskCounts(pending=4, completed=1)
        for task in good:
            assert await store.get(task.id, ANONYMOUS) is not None

    play(scenario)


def test_a_submit_of_several_tasks_is_stored_whole_or_not_at_all(play: Play) -> None:
    async def scenario(store: SqliteTaskStore) -> None:
        task = new_task()
        with pytest.raises(StoreUnavailable):
            await store.submit([new_task(), task, task], NO_LIMITS)
        assert await store.counts() == TaskCounts()
        assert await store.get(task.id, ANONYMOUS) is None

    play(scenario)


SAME = Idempotency("key", b"fingerprint")


def test_of_equal_submits_that_share_a_commit_one_is_accepted(play: Play) -> None:
    async def scenario(store: SqliteTaskStore) -> None:
        async with gathering(store):
            equal = [[new_task(idempotency=SAME) for _ in range(2)] for _ in range(4)]
            waiting = [submit(store, new_task(), *tasks) for tasks in equal]
        answers = [answer for call in await asyncio.gather(*waiting) for answer in call[1:]]
        assert [type(answer) for answer in answers] == [Accepted] + 7 * [Replayed]
        assert len({answer.task.id for answer in answers}) == 1
        assert await store.counts() == TaskCounts(pending=5)

    play(scenario)


def test_a_task_can_be_cancelled_in_the_commit_that_stores_it(play: Play) -> None:
    async def scenario(store: SqliteTaskStore) -> None:
        task = new_task()
        async with gathering(store):
            submitting = submit(store, task)
            cancelling = asyncio.create_task(store.request_cancel(task.id, ANONYMOUS))
        await submitting
        cancelled = await cancelling
        assert cancelled is not None
        assert cancelled.status is TaskStatus.CANCELLED
        assert await store.get(task.id, ANONYMOUS) == cancelled
        assert await store.counts() == TaskCounts(cancelled=1)

    play(scenario)


def test_a_key_is_free_in_the_commit_that_deletes_its_task(play: Play) -> None:
    async def scenario(store: SqliteTaskStore) -> None:
        first, second = new_task(idempotency=SAME), new_task(idempotency=SAME)
        async with gathering(store):
            submitting = submit(store, first)
            deleting = asyncio.create_task(store.delete(first.id, ANONYMOUS))
            anew = submit(store, second)
        await submitting
        assert await deleting
        assert [type(answer) for answer in await anew] == [Accepted]
        assert await store.get(first.id, ANONYMOUS) is None
        assert await store.counts() == TaskCounts(pending=1)

    play(scenario)


def test_room_is_made_before_a_key_is_looked_up(play: Play) -> None:
    async def scenario(store: SqliteTaskStore) -> None:
        await store.submit([new_task(idempotency=SAME)], NO_LIMITS)
        [claim] = await store.claim(WORKER, {"echo": 1}, LEASE)
        await store.settle([Completed(claim.fence, RESULT, USAGE)])
        limits = SubmitLimits(max_pending=9, retention=RetentionPolicy(0, max_tasks=1))
        [answer] = await store.submit([new_task(idempotency=SAME)], limits)
        assert isinstance(answer, Accepted)
        assert await store.counts() == TaskCounts(pending=1)

    play(scenario)


def test_a_claim_that_was_not_committed_is_repeated_with_what_had_become_due(
    play: Play, clock: FakeClock
) -> None:
    async def scenario(store: SqliteTaskStore) -> None:
        task = new_task(delay_seconds=1)
        await store.submit([task], NO_LIMITS)
        clock.advance(1)
        store._writing.set_authorizer(no_commits)
        with pytest.raises(StoreUnavailable):
            await store.claim(WORKER, {"echo": 1}, LEASE)
        store._writing.set_authorizer(None)
        assert ids(await store.claim(WORKER, {"echo": 1}, LEASE)) == [task.id]

    play(scenario)


def test_what_becomes_due_at_once_comes_in_turn_a_bounded_number_a_claim(
    play: Play, clock: FakeClock, monkeypatch: Any
) -> None:
    async def scenario(store: SqliteTaskStore) -> None:
        monkeypatch.setattr(tables, "_RIPENED_PER_CLAIM", 3)
        await store.submit([new_task(delay_seconds=1) for _ in range(7)], NO_LIMITS)
        clock.advance(1)
        claims = [await store.claim(WORKER, {"echo": 9}, LEASE) for _ in range(4)]
        assert [len(claimed) for claimed in claims] == [3, 3, 1, 0]

    play(scenario)


def test_a_commit_that_fails_fails_all_that_share_it(play: Play, path: Path) -> None:
    async def scenario(store: SqliteTaskStore) -> None:
        [claim] = await submitted_and_claimed(store)
        store._writing.set_authorizer(no_commits)
        async with gathering(store):
            waiting = [submit(store) for _ in range(3)]
            settling = asyncio.create_task(store.settle([HandedBack(claim.fence)]))
        answers = await asyncio.gather(*waiting, settling, return_exceptions=True)
        assert [type(answer) for answer in answers] == [StoreUnavailable] * 4
        with pytest.raises(StoreUnavailable):
            await store.check()
        store._writing.set_authorizer(None)
        assert await store.counts() == TaskCounts(running=1)
        with closing(sqlite3.connect(path)) as other:
            assert other.execute("SELECT status FROM task").fetchall() == [("running",)]
        await store.check()
        assert await store.settle([HandedBack(claim.fence)]) == [TaskStatus.PENDING]

    play(scenario)


def no_commits(action: int, operation: str | None, *_: str | None) -> int:
    commit = action == sqlite3.SQLITE_TRANSACTION and operation == "COMMIT"
    return sqlite3.SQLITE_DENY if commit else sqlite3.SQLITE_OK


def test_a_full_database_refuses_what_needs_room_and_goes_on_when_there_is_some(play: Play) -> None:
    async def scenario(store: SqliteTaskStore) -> None:
        kept = new_task()
        await store.submit([kept], NO_LIMITS)
        set_largest_size(store, 1)
        with pytest.raises(StoreUnavailable, match="full"):
            await store.submit([new_task(input=b'"%s"' % (b"x" * 100_000))], NO_LIMITS)
        assert await store.counts() == TaskCounts(pending=1)
        assert await store.get(kept.id, ANONYMOUS) is not None
        set_largest_size(store, 1_000_000)
        await store.submit([new_task()], NO_LIMITS)
        assert await store.counts() == TaskCounts(pending=2)

    play(scenario)


def test_a_check_fails_while_nothing_can_be_written(play: Play) -> None:
    async def scenario(store: SqliteTaskStore) -> None:
        store._writing.set_authorizer(no_updates)
        with pytest.raises(StoreUnavailable):
            await store.check()
        store._writing.set_authorizer(None)
        await store.check()

    play(scenario)


def no_updates(action: int, *_: str | None) -> int:
    return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_UPDATE else sqlite3.SQLITE_OK


def set_largest_size(store: SqliteTaskStore, pages: int) -> None:
    store._writing.execute(f"PRAGMA max_page_count = {pages}")


def test_a_caller_who_goes_away_spoils_nothing_and_his_task_is_stored(play: Play) -> None:
    async def scenario(store: SqliteTaskStore) -> None:
        gone, stays = new_task(), new_task()
        async with gathering(store):
            going, staying = submit(store, gone), submit(store, stays)
            await asyncio.sleep(0)
            going.cancel()
        await staying
        assert going.cancelled()
        assert await store.get(gone.id, ANONYMOUS) is not None
        assert await store.get(stays.id, ANONYMOUS) is not None

    play(scenario)


def test_a_read_that_fails_spoils_none_of_its_neighbours(play: Play) -> None:
    async def scenario(store: SqliteTaskStore) -> None:
        task = new_task()
        await store.submit([task], NO_LIMITS)
        asked = [task.id, "\ud800", "\x00", task.id]
        found = await asyncio.gather(*[store.get(task_id, ANONYMOUS) for task_id in asked])
        assert [one is not None for one in found] == [True, False, False, True]

    play(scenario)


def test_only_claims_and_renewals_are_committed_without_waiting_for_the_disk(play: Play) -> None:
    async def scenario(store: SqliteTaskStore) -> None:
        full, normal = 2, 1
        await store.submit([new_task(), new_task()], NO_LIMITS)
        assert synchronous(store) == full
        [claim] = await store.claim(WORKER, {"echo": 1}, LEASE)
        assert synchronous(store) == normal
        await store.submit([new_task()], NO_LIMITS)
        assert synchronous(store) == full
        await store.renew([claim.fence], LEASE)
        assert synchronous(store) == normal
        await store.settle([HandedBack(claim.fence)])
        assert synchronous(store) == full
        async with gathering(store):
            claiming = asyncio.create_task(store.claim(WORKER, {"echo": 1}, LEASE))
            submitting = submit(store)
        await asyncio.gather(claiming, submitting)
        assert synchronous(store) == full

    play(scenario)


def synchronous(store: SqliteTaskStore) -> int:
    [[value]] = store._writing.execute("PRAGMA synchronous")
    return int(value)


def test_with_durability_normal_no_commit_waits_for_the_disk(path: Path) -> None:
    async def scenario() -> None:
        options = SqliteOptions(path=str(path), durability="normal")
        async with SqliteTaskStore(options, FakeClock()) as store:
            await store.submit([new_task()], NO_LIMITS)
            assert synchronous(store) == 1

    asyncio.run(scenario())


def test_a_disk_that_hangs_is_reported_in_time(play: Play, monkeypatch: Any) -> None:
    async def scenario(store: SqliteTaskStore) -> None:
        monkeypatch.setattr(batches, "_PATIENCE_SECONDS", 0.05)
        async with gathering(store):
            with pytest.raises(StoreUnavailable, match="no answer"):
                await store.check()
        monkeypatch.undo()
        await store.check()

    play(scenario)


def test_too_many_that_wait_are_refused_instead_of_remembered(play: Play, monkeypatch: Any) -> None:
    async def scenario(store: SqliteTaskStore) -> None:
        monkeypatch.setattr(batches, "_MOST_WAITING", 3)
        async with gathering(store):
            waiting = [submit(store) for _ in range(3)]
            await asyncio.sleep(0)
            with pytest.raises(StoreUnavailable, match="3 calls wait"):
                await store.submit([new_task()], NO_LIMITS)
        await asyncio.gather(*waiting)
        assert await store.counts() == TaskCounts(pending=3)

    play(scenario)


# --- processes that are killed, or watched --------------------------------------------------------

CLIENTS = """
import asyncio, sys
from adapters.stores.sqlite import SqliteOptions, SqliteTaskStore
from adapters.clock import SystemClock
from adapters.testing.store_case import NO_LIMITS, RESULT, USAGE, WORKER, new_task
from domain.ports import Completed

path, clients, tasks = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

def say(*words):
    print(*words, flush=True)

async def main():
    async with SqliteTaskStore(SqliteOptions(path=path), SystemClock()) as store:
        async def client(number):
            for turn in range(tasks):
                task = new_task(id=f"{number}-{turn}")
                await store.submit([task], NO_LIMITS)
                say("submitted", task.id)

        async def worker():
            while True:
                claims = await store.claim(WORKER, {"echo": 8}, 30.0)
                written = await store.settle([Completed(c.fence, RESULT, USAGE) for c in claims])
                for claim in claims:
                    say("completed", claim.task.id)

        working = asyncio.create_task(worker())
        await asyncio.gather(*[client(number) for number in range(clients)])
        working.cancel()

asyncio.run(main())
"""


def test_a_killed_process_leaves_behind_all_that_was_answered(path: Path) -> None:
    command = [sys.executable, "-c", CLIENTS, str(path), "16", "1000000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(500)]
        process.kill()
        lines += process.stdout.read().rpartition("\n")[0].splitlines()
    said = [tuple(line.split()) for line in lines]
    submitted = {task_id for what, task_id in said if what == "submitted"}
    completed = {task_id for what, task_id in said if what == "completed"}
    assert len(submitted) > 100
    assert completed

    async def look() -> None:
        async with SqliteTaskStore(SqliteOptions(path=str(path)), FakeClock()) as store:
            for task_id in submitted:
                task = await store.get(task_id, ANONYMOUS)
                assert task is not None
                assert task.done or task_id not in completed
            await counts_are_true(store)

    asyncio.run(look())


async def counts_are_true(store: SqliteTaskStore) -> None:
    rows = store._writing.execute("SELECT status, count(*) FROM task GROUP BY status").fetchall()
    assert await store.counts() == TaskCounts(**dict(rows))


@pytest.mark.torture
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_sixty_four_clients_cost_less_than_a_fifth_of_an_fsync_a_task(
    path: Path, tmp_path: Path
) -> None:
    log = tmp_path / "calls"
    strace = ["strace", "-f", "-qq", "-e", "trace=fsync,fdatasync", "-o", str(log)]
    command = [*strace, sys.executable, "-c", CLIENTS, str(path), "64", "100"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=100)
    synced = len(re.findall(r"f(?:data)?sync\(", log.read_text()))
    assert 0 < synced < 0.2 * 64 * 100
