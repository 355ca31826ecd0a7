"""Before SQLite's file is open it is made, judged, and locked; or it is refused."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from stat import S_IMODE
from typing import Any

import pytest
from msgspec.structs import replace

from adapters.json_columns import json_text
from adapters.stores.sqlite import SqliteOptions, SqliteTaskStore
from adapters.stores.sqlite.opening import MIGRATIONS, NEWEST
from adapters.testing.fakes import FakeClock
from adapters.testing.store_case import LEASE, NO_LIMITS, RESULT, USAGE, WORKER, ids, new_task
from domain.errors import StoreUnusable
from domain.ports import TaskCounts
from domain.query import TaskQuery
from domain.task import ANONYMOUS, Task, TaskStatus


def opened(path: Path, *, migrate: bool = True) -> SqliteTaskStore:
    return SqliteTaskStore(SqliteOptions(path=str(path), migrate_on_start=migrate), FakeClock())


async def open_and_close(path: Path, *, migrate: bool = True) -> None:
    async with opened(path, migrate=migrate):
        pass


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "tasks.db"


@pytest.fixture
def sound(path: Path) -> Path:
    """A database with a few tasks, closed in good order."""

    async def fill() -> None:
        async with opened(path) as store:
            await store.submit([new_task(input=b'"%d"' % n) for n in range(500)], NO_LIMITS)

    asyncio.run(fill())
    return path


def contents(directory: Path) -> dict[str, bytes]:
    """All files but the lock."""
    return {file.name: file.read_bytes() for file in directory.iterdir() if file.suffix != ".lock"}


def overwrite(path: Path, at: int, junk: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(junk)


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def half(path: Path) -> int:
    return path.stat().st_size // 2


def become_a_database_of_others(path: Path) -> None:
    path.unlink()
    execute(path, "CREATE TABLE recipes (name TEXT)")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: os.truncate(path, 0), "it is empty"),
    "text": (lambda path: path.write_text("tasks: none\n" * 1_000), "not a database"),
    "a header and nothing else": (lambda path: os.truncate(path, 100), "cannot be used"),
    "cut in the middle": (lambda path: os.truncate(path, half(path)), "cannot be used"),
    "its last byte gone": (lambda path: os.truncate(path, path.stat().st_size - 1), "cut off"),
    "junk in its first page": (lambda path: overwrite(path, 40, b"\x99" * 3_000), "cannot be used"),
    "junk in the middle": (lambda path: overwrite(path, half(path), b"\x99" * 9_000), "corrupt"),
    "another program's": (become_a_database_of_others, "of another program"),
    "a newer schema": (
        lambda path: execute(path, f"PRAGMA user_version = {NEWEST + 1}"),
        f"version {NEWEST + 1}, this program knows {NEWEST}",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_that_cannot_be_used_is_refused_and_left_as_it_was(sound: Path, damage: str) -> None:
    inflict, reason = DAMAGE[damage]
    inflict(sound)
    before = contents(sound.parent)
    with pytest.raises(StoreUnusable, match=reason):
        asyncio.run(open_and_close(sound))
    assert contents(sound.parent) == before


def test_a_newer_schema_is_refused_with_its_log_unchanged_after_a_crash(
    path: Path, tmp_path: Path
) -> None:
    left_behind = tmp_path / "left behind"

    async def crash() -> None:
        async with opened(path) as store:
            await store.submit([new_task()], NO_LIMITS)
            execute(path, f"PRAGMA user_version = {NEWEST + 1}")
            shutil.copytree(path.parent, left_behind)

    asyncio.run(crash())
    before = contents(left_behind)
    assert before["tasks.db-wal"]
    with pytest.raises(StoreUnusable, match="this program knows"):
        asyncio.run(open_and_close(left_behind / "tasks.db"))
    after = contents(left_behind)
    assert (after["tasks.db"], after["tasks.db-wal"]) == (
        before["tasks.db"],
        before["tasks.db-wal"],
    )


def test_an_older_schema_is_brought_up_to_date(sound: Path) -> None:
    become_an_older_one(sound)
    asyncio.run(open_and_close(sound))
    with closing(sqlite3.connect(sound)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (NEWEST,)
        assert connection.execute("SELECT count(*) FROM task").fetchone() == (0,)


def test_a_file_of_version_1_is_brought_up_to_date_with_its_tasks_intact(sound: Path) -> None:
    become_version_1(sound)
    clock = FakeClock(now=START + 10)

    async def scenario() -> None:
        async with SqliteTaskStore(SqliteOptions(path=str(sound)), clock) as store:
            assert await store.counts() == TaskCounts(pending=2, running=1, completed=1)
            found = await store.find(TaskQuery(owner=ANONYMOUS, with_result=True, with_input=True))
            assert [one.task for one in reversed(found.found)] == OF_VERSION_1
            assert {one.input for one in found.found} == {b'"hello"'}
            assert await store.queue_position(OF_VERSION_1[1]) == 1
            assert ids(await store.claim(WORKER, {"echo": 9}, LEASE)) == ["due"]
            clock.advance(1)
            assert ids(await store.claim(WORKER, {"echo": 9}, LEASE)) == ["to be retried"]
            await store.reclaim(max_crashes=5, limit=9)
            assert ids(await store.claim(WORKER, {"echo": 9}, LEASE)) == ["running"]

    asyncio.run(scenario())


START = 1_700_000_000_000_000


def of_version_1(task_id: str, rank: int, **changes: Any) -> Task:
    task = new_task(id=task_id, metadata={"key": "ü"}).accepted(START)
    return replace(task, rank=START + rank, due_at=START + rank, **changes)


OF_VERSION_1 = [
    of_version_1("running", 0, status=TaskStatus.RUNNING, attempt=1, started_at=START + 2),
    of_version_1("due", 0),
    of_version_1("to be retried", 1_000_000, attempt=1, failures=1),
    of_version_1(
        "completed",
        0,
        status=TaskStatus.COMPLETED,
        attempt=1,
        started_at=START + 1,
        completed_at=START + 3,
        result=RESULT,
        usage=USAGE,
    ),
]


def become_version_1(path: Path) -> None:
    become_an_older_one(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(MIGRATIONS[0][1])
        for number, task in enumerate(OF_VERSION_1, 1):
            insert(connection, number, task)
        connection.execute("UPDATE task_count SET pending = 2, running = 1, completed = 1")
        connection.execute("PRAGMA user_version = 1")
        connection.commit()


def insert(connection: sqlite3.Connection, number: int, task: Task) -> None:
    connection.execute(
        "INSERT INTO task VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, 1.5, ?, ?, ?, NULL)",
        (
            number,
            task.id,
            task.owner,
            task.status.value,
            task.executor,
            task.model,
            task.timeout_seconds,
            task.max_attempts,
            task.rank,
            task.created_at,
            task.attempt,
            task.failures,
            WORKER,
            task.started_at,
            task.completed_at,
            json_text(task.usage),
        ),
    )
    payload = (number, json_text(task.metadata), b"{}", b'"hello"')
    connection.execute("INSERT INTO task_payload VALUES (?, ?, ?, ?)", payload)
    if task.result is not None:
        connection.execute("INSERT INTO task_result VALUES (?, ?)", (number, task.result))


def become_an_older_one(path: Path) -> None:
    """Version 0: a file of ours, before its first migration."""
    with closing(sqlite3.connect(path)) as connection:
        [application_id] = connection.execute("PRAGMA application_id").fetchone()
    path.unlink()
    execute(path, f"PRAGMA application_id = {application_id}")


def test_an_older_schema_is_refused_when_migrations_are_off_and_left_as_it_was(sound: Path) -> None:
    become_an_older_one(sound)
    before = contents(sound.parent)
    with pytest.raises(StoreUnusable, match="run `task-agent migrate`"):
        asyncio.run(open_and_close(sound, migrate=False))
    assert contents(sound.parent) == before


def test_a_file_that_does_not_exist_is_not_made_when_migrations_are_off(path: Path) -> None:
    with pytest.raises(StoreUnusable, match="run `task-agent migrate`"):
        asyncio.run(open_and_close(path, migrate=False))
    assert contents(path.parent) == {}


def test_a_file_of_the_newest_schema_opens_with_migrations_off(sound: Path) -> None:
    asyncio.run(open_and_close(sound, migrate=False))


def test_migrations_are_numbered_from_one_without_a_gap() -> None:
    assert [number for number, _ in MIGRATIONS] == list(range(1, NEWEST + 1))


def test_a_new_database_is_for_its_owner_only(path: Path) -> None:
    async def modes() -> dict[str, int]:
        async with opened(path) as store:
            await store.submit([new_task()], NO_LIMITS)
            return {file.name: S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}

    umask = os.umask(0)
    try:
        found = asyncio.run(modes())
    finally:
        os.umask(umask)
    names = ("tasks.db", "tasks.db-wal", "tasks.db-shm", "tasks.db.lock")
    assert found == dict.fromkeys(names, 0o600)
    assert S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_that_others_could_read_is_for_its_owner_only_from_then_on(sound: Path) -> None:
    sound.chmod(0o644)
    asyncio.run(open_and_close(sound))
    assert S_IMODE(sound.stat().st_mode) == 0o600


def test_a_store_that_was_closed_is_one_file(sound: Path) -> None:
    assert list(contents(sound.parent)) == ["tasks.db"]


def test_what_a_killed_process_left_of_a_new_database_is_thrown_away(path: Path) -> None:
    path.parent.mkdir()
    for suffix in (".new", ".new-wal", ".new-shm", ".new-journal"):
        path.with_name(path.name + suffix).write_bytes(b"half")
    asyncio.run(open_and_close(path))
    assert list(contents(path.parent)) == ["tasks.db"]


def test_a_log_whose_database_is_gone_is_not_built_upon(path: Path) -> None:
    path.parent.mkdir()
    path.with_name("tasks.db-wal").write_bytes(b"the last tasks")
    before = contents(path.parent)
    with pytest.raises(StoreUnusable, match="the file itself is gone"):
        asyncio.run(open_and_close(path))
    assert contents(path.parent) == before


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(StoreUnusable, match=r"data/tasks\.db"):
        asyncio.run(open_and_close(tmp_path / "data" / "tasks.db"))


def test_a_file_by_another_name_is_the_same_file(path: Path, tmp_path: Path) -> None:
    async def open_twice() -> None:
        async with opened(path):
            (tmp_path / "link.db").symlink_to(path)
            with pytest.raises(StoreUnusable, match="another process has it open"):
                await open_and_close(tmp_path / "link.db")

    asyncio.run(open_twice())


OPEN_THERE = """
import asyncio, sys
from adapters.stores.sqlite import SqliteOptions, SqliteTaskStore
from adapters.testing.fakes import FakeClock

async def main():
    async with SqliteTaskStore(SqliteOptions(path=sys.argv[1]), FakeClock()):
        pass

asyncio.run(main())
"""


def test_a_second_process_is_refused_and_the_first_goes_on_undisturbed(path: Path) -> None:
    async def open_here_and_there() -> None:
        async with opened(path) as store:
            task = new_task()
            await store.submit([task], NO_LIMITS)
            command = [sys.executable, "-c", OPEN_THERE, str(path)]
            there = await asyncio.to_thread(
                subprocess.run, command, capture_output=True, text=True, check=False
            )
            assert there.returncode == 1
            assert "StoreUnusable" in there.stderr
            assert "another process has it open" in there.stderr
            await store.submit([new_task()], NO_LIMITS)
            assert await store.get(task.id, ANONYMOUS) is not None

    asyncio.run(open_here_and_there())


def test_a_file_that_a_foreign_program_writes_to_is_refused(sound: Path) -> None:
    with closing(sqlite3.connect(sound, isolation_level=None)) as foreign:
        foreign.execute("BEGIN IMMEDIATE")
        foreign.execute("UPDATE task_count SET cancelled = 7")
        with pytest.raises(StoreUnusable, match="locked"):
            asyncio.run(open_and_close(sound))
        foreign.execute("COMMIT")
        assert foreign.execute("SELECT cancelled FROM task_count").fetchone() == (7,)
