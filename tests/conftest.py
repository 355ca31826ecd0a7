"""What concerns all tests.

Which folders hold none of ours; that a failed assertion of a shipped contract shows its values, as
ours do; and a database to test in, where a PostgreSQL answers.
"""

import asyncio
import os
import uuid
from collections.abc import Callable, Iterator

import asyncpg
import pytest

collect_ignore = ["plugin_example"]  # a package of its own; `e2e/test_plugins.py` runs its tests
pytest.register_assert_rewrite("adapters.testing")

HOST = os.environ.get("PGHOST", "127.0.0.1")
PORT = os.environ.get("PGPORT", "5432")
USER = os.environ.get("PGUSER", "postgres")
SERVER = f"postgresql://{USER}@{HOST}:{PORT}"


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
