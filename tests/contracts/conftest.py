"""What the contracts need around them.

A failed assertion of a shipped contract shows its values, as those in this folder do; and there is
a database to test in, where a PostgreSQL answers.
"""

import asyncio
import uuid
from collections.abc import Iterator

import asyncpg
import pytest

pytest.register_assert_rewrite("adapters.testing")

SERVER = "postgresql://postgres@127.0.0.1:5432"


@pytest.fixture(scope="session")
def postgres_database() -> Iterator[str]:
    """The DSN of a database that is made for this run, and dropped after it."""
    name = f"task_agent_{uuid.uuid4().hex}"
    try:
        asyncio.run(execute(f"CREATE DATABASE {name}"))
    except (OSError, asyncpg.PostgresError) as error:
        pytest.skip(f"no PostgreSQL answers on 127.0.0.1:5432 ({type(error).__name__})")
    yield f"{SERVER}/{name}"
    asyncio.run(execute(f"DROP DATABASE {name} WITH (FORCE)"))


async def execute(statement: str) -> None:
    connection = await asyncpg.connect(f"{SERVER}/postgres", timeout=5)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
