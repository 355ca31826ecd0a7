"""The service as several processes on one PostgreSQL."""

import asyncio
from collections.abc import Callable, Collection
from typing import Any, NamedTuple, Self

import asyncpg
import pytest


class Database:
    """The tables of a service, seen past the service."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    def fetch(self, query: str, *values: object) -> Any:
        return asyncio.run(self._fetch(query, *values))

    async def _fetch(self, query: str, *values: object) -> Any:
        connection = await asyncpg.connect(self.dsn, timeout=10)
        try:
            return await connection.fetch(query, *values)
        finally:
            await connection.close()

    def pending(self, task_ids: Collection[str]) -> Any:
        query = "SELECT id FROM task WHERE status = 'pending' AND id = ANY ($1)"
        return self.fetch(query, list(task_ids))

    def held_by(self, process: Any) -> dict[str, int]:
        """The tasks that run on this process, with their attempts, as far as the tables tell."""
        rows = self.fetch(
            "SELECT id, attempt FROM task WHERE status = 'running' AND worker LIKE $1",
            f"%-{process.process.pid}-%",
        )
        return {row["id"]: row["attempt"] for row in rows}


class Fleet(NamedTuple):
    """One API and some workers."""

    api: Any
    workers: list[Any]
    database: Database
    eventually: Callable[..., Any]

    @property
    def processes(self) -> list[Any]:
        return [self.api, *self.workers]

    def start(self) -> Self:
        """Start all at once."""
        for process in self.processes:
            process.launch()
        for process in self.processes:
            process.until_ready()
        return self

    def hold_on_each_worker(self, load: Any, seconds: float) -> set[str]:
        """Submit tasks of so many seconds, one by one, until each worker was just given one."""
        held: set[str] = set()

        def each_runs_one() -> bool:
            if not self.database.pending(held):
                held.add(load.submit("held", seconds))
            return all(held & self.database.held_by(worker).keys() for worker in self.workers)

        self.eventually(each_runs_one, 20, "each worker runs a task")
        return held


@pytest.fixture
def dsn(new_schema: Callable[[], str]) -> str:
    """Where the processes of a test meet: a schema of its own, on the server that tests share."""
    return new_schema()


@pytest.fixture
def database(dsn: str) -> Database:
    return Database(dsn)


@pytest.fixture
def make_fleet(
    make_service: Callable[..., Any], database: Database, eventually: Callable[..., Any]
) -> Callable[..., Fleet]:
    """Make an API and some workers on the test's database, and start them."""

    def make(workers: int, **settings: Any) -> Fleet:
        shared = {"store__backend": "postgres", "store__dsn": database.dsn} | settings
        api = make_service(command="serve --no-worker", **shared)
        others = [make_service(command="worker", **shared) for _ in range(workers)]
        return Fleet(api, others, database, eventually).start()

    return make
