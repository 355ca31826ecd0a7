"""New tasks of the transaction, stored together: at its end, or before one is looked for."""

import sqlite3
from typing import Any

from adapters.stores.sqlite.rows import payload, submitted
from adapters.stores.sqlite.statements import SQL
from domain.task import NewTask, Task


class Arrivals:
    """What was accepted, and is not in the tables yet."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute_many = connection.executemany
        self._tasks: list[tuple[Any, ...]] = []
        self._payloads: list[tuple[Any, ...]] = []

    def add(self, number: int, new: NewTask, task: Task) -> None:
        """Keep this one until `store`."""
        self._tasks.append(submitted(number, task, new.idempotency))
        self._payloads.append(payload(number, new))

    def store(self) -> None:
        """Put them into the tables."""
        if self._tasks:
            self._execute_many(SQL["submit_task"], self._tasks)
            self._execute_many(SQL["submit_payload"], self._payloads)
            self.forget()

    def forget(self) -> None:
        """Let go of them: stored, or rolled back."""
        self._tasks.clear()
        self._payloads.clear()
