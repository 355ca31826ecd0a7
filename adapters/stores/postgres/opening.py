"""How the store is opened: reach the server, bring the schema up to date, keep connections."""

from importlib.resources import files
from typing import Final

import asyncpg

from domain.errors import StoreUnusable

MIGRATIONS: Final = sorted(
    (int(file.name[:3]), file.read_text("utf-8"))
    for file in files("adapters.stores.postgres.migrations").iterdir()
    if file.name.endswith(".sql")
)
NEWEST: Final = MIGRATIONS[-1][0]
_ADVISORY_LOCK: Final = 0x7461736B  # "task"
_CREATE_VERSIONS: Final = (
    "CREATE TABLE IF NOT EXISTS task_schema "
    "(version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
)


async def make_ready(connection: asyncpg.Connection, *, migrate: bool) -> None:
    """Apply what is missing of the migrations, or refuse the schema as it is.

    An advisory lock lets one process at a time do so; each migration is one transaction, and an
    interrupted one has not happened.
    """
    await connection.execute("SELECT pg_advisory_lock($1)", _ADVISORY_LOCK)
    try:
        version = await _version(connection)
        if version > NEWEST:
            raise _unusable(f"its schema is version {version}, this program knows {NEWEST}")
        if version < NEWEST and not migrate:
            raise _unusable(f"its schema is version {version}: run `task-agent migrate`")
        if version == 0:
            await connection.execute(_CREATE_VERSIONS)
        for number, script in MIGRATIONS[version:]:
            async with connection.transaction():
                await connection.execute(script)
                await connection.execute("INSERT INTO task_schema (version) VALUES ($1)", number)
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", _ADVISORY_LOCK)


async def _version(connection: asyncpg.Connection) -> int:
    if await connection.fetchval("SELECT to_regclass('task_schema')") is None:
        return 0
    version: int = await connection.fetchval("SELECT coalesce(max(version), 0) FROM task_schema")
    return version


def _unusable(reason: str) -> StoreUnusable:
    return StoreUnusable("in PostgreSQL", reason)
