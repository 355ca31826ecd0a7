"""A PostgreSQL to measure on: databases of the bench's own, dropped afterwards."""

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from bench import Skipped
from machine import cpu_seconds

_SERVER = "postgresql://postgres@127.0.0.1:5432"
_CONNECTED = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
)


@contextmanager
def database() -> Iterator[str]:
    """The DSN of an empty database. Hints go to all that listen in one, so nobody shares it."""
    name = f"task_agent_bench_{uuid.uuid4().hex}"
    try:
        fetch(f"{_SERVER}/postgres", f"CREATE DATABASE {name}")
    except (OSError, asyncpg.PostgresError) as error:
        reason = f"no PostgreSQL answers on 127.0.0.1:5432 ({type(error).__name__})"
        raise Skipped(reason) from error
    try:
        yield f"{_SERVER}/{name}"
    finally:
        fetch(f"{_SERVER}/postgres", f"DROP DATABASE {name} WITH (FORCE)")


def vacuum(dsn: str) -> None:
    """Do what autovacuum does in a minute or so, where it is on: statistics, no dead rows."""
    fetch(dsn, "VACUUM (ANALYZE)")


def cpu_seconds_of(dsn: str) -> float:
    """The CPU time that the server's processes of this database's connections have used."""
    rows = fetch(dsn, _CONNECTED)
    return sum(cpu_seconds(row["pid"]) for row in rows)


def fetch(dsn: str, statement: str, *values: object) -> list[asyncpg.Record]:
    """The rows of a statement, on a connection of its own."""

    async def rows() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(dsn, timeout=5)
        try:
            fetched: list[asyncpg.Record] = await connection.fetch(statement, *values)
            return fetched
        finally:
            await connection.close()

    return asyncio.run(rows())
