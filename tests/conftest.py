"""What concerns all tests.

Which folders hold none of ours; that a failed assertion of a shipped contract shows its values, as
ours do; how a stream of events is read; a database to test in, where a PostgreSQL answers; and a
PostgreSQL server of a test's own, where one is installed.
"""

import asyncio
import json
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import pytest

collect_ignore = ["plugin_example"]  # a package of its own; `e2e/test_plugins.py` runs its tests
pytest.register_assert_rewrite("adapters.testing")

HOST = os.environ.get("PGHOST", "127.0.0.1")
PORT = os.environ.get("PGPORT", "5432")
USER = os.environ.get("PGUSER", "postgres")
SERVER = f"postgresql://{USER}@{HOST}:{PORT}"


class Event(NamedTuple):
    """A message of a stream."""

    number: int
    kind: str
    data: Any


def parse_events(text: bytes) -> list[Event]:
    """The whole events of a stream; comments, and a broken end, are none."""
    *whole, _ = text.split(b"\n\n")
    fields = [
        dict(line.split(b": ", 1) for line in one.split(b"\n")) for one in whole if one != b":"
    ]
    return [
        Event(int(one[b"id"]), one[b"event"].decode(), json.loads(one[b"data"])) for one in fields
    ]


@pytest.fixture(scope="session")
def events_in() -> Callable[[bytes], list[Event]]:
    """See `parse_events`."""
    return parse_events


@pytest.fixture(scope="session")
def postgres_database() -> Iterator[str]:
    """The DSN of a database that is made for this run, and dropped after it.

    The server is that of the usual variables (PGHOST, PGPORT, PGUSER, PGPASSWORD), or this
    machine's; where none answers, the test is skipped. Nobody pulls its plug: commits there do not
    wait for the disk.
    """
    name = f"task_agent_{uuid.uuid4().hex}"
    try:
        execute(f"{SERVER}/postgres", f"CREATE DATABASE {name}")
    except (OSError, asyncpg.PostgresError) as error:
        pytest.skip(f"no PostgreSQL answers on {HOST}:{PORT} ({type(error).__name__})")
    execute(f"{SERVER}/postgres", f"ALTER DATABASE {name} SET synchronous_commit = off")
    yield f"{SERVER}/{name}"
    execute(f"{SERVER}/postgres", f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def new_schema(postgres_database: str) -> Callable[[], str]:
    """Makes an empty schema in this run's database, and gives a DSN that leads there."""

    def create() -> str:
        schema = f"test_{uuid.uuid4().hex}"
        execute(postgres_database, f"CREATE SCHEMA {schema}")
        return f"{postgres_database}?search_path={schema}"

    return create


def execute(dsn: str, statement: str) -> None:
    async def connect_and_execute() -> None:
        connection = await asyncpg.connect(dsn, timeout=5)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(connect_and_execute())


class PostgresServer:
    """A PostgreSQL server that may be stopped. It never waits for the disk."""

    def __init__(self, programs: Path, home: Path, user: str | None) -> None:
        """`home` is empty, and belongs to `user`; None is who runs the tests."""
        self._programs = programs
        self._home = home
        self._user = user
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.dsn = f"postgresql://postgres@127.0.0.1:{self._port}/postgres"

    def create(self) -> None:
        self._run("initdb", "--no-sync", "--auth=trust", "--username=postgres", "--locale=C")

    def start(self, **settings: object) -> None:
        """Start it, and wait until it answers."""
        options = f"-F -p {self._port} -k {self._home}"
        options += "".join(f" -c {name}={value}" for name, value in settings.items())
        self._run("pg_ctl", "start", "--wait", f"--log={self._home}/log", f"--options={options}")

    def stop(self) -> None:
        """Stop it at once, as a crash would."""
        self._run("pg_ctl", "stop", "--wait", "--mode=immediate")

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._programs / program), f"--pgdata={self._home / 'data'}", *arguments],
            user=self._user,
            cwd=self._home,
            stdout=subprocess.DEVNULL,
            check=True,
        )


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A server of this run's own. A test that stops it starts it again."""
    programs, user = server_programs(), server_user()
    with tempfile.TemporaryDirectory() as home:
        if user:
            shutil.chown(home, user)
        server = PostgresServer(programs, Path(home), user)
        server.create()
        server.start()
        yield server
        server.stop()


def server_programs() -> Path:
    """The newest ones that are installed."""
    places = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if found := shutil.which("initdb"):
        places.append(Path(found).parent)
    if not places:
        pytest.skip("no PostgreSQL server is installed (initdb, pg_ctl)")
    return places[-1]


def server_user() -> str | None:
    """Whom the server runs as, where it may not run as who runs the tests."""
    if os.geteuid() != 0:
        return None
    if "postgres" not in {entry.pw_name for entry in pwd.getpwall()}:
        pytest.skip("a PostgreSQL server does not run as root, and there is no user postgres")
    return "postgres"
