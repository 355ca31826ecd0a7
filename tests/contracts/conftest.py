"""What the contracts need around them.

A failed assertion of a shipped contract shows its values, as those in this folder do; tests may be
`async def`; and there is a database to test in, where a PostgreSQL answers.
"""

import asyncio
import inspect
import uuid
from collections.abc import Iterator

import asyncpg
import pytest

pytest.register_assert_rewrite("adapters.testing")

SERVER = "postgresql://postgres@127.0.0.1:5432"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run the `async def` tests of this folder on an event loop of their own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in wanted}))
    return True


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


@pytest.fixture
def dsn(postgres_database: str) -> str:
    """The DSN of an empty schema of the test's own."""
    schema = f"test_{uuid.uuid4().hex}"
    asyncio.run(execute(f"CREATE SCHEMA {schema}", postgres_database))
    return f"{postgres_database}?search_path={schema}"


async def execute(statement: str, dsn: str = f"{SERVER}/postgres") -> None:
    connection = await asyncpg.connect(dsn, timeout=5)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
