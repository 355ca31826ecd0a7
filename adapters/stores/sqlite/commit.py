"""Group commit: all the writes that wait are one transaction, and one fsync.

* A write that fails by itself takes the transaction with it; the writes are then repeated one by
  one, so that only the failing one is answered with its error.
* Where the database fails (a full disk, an I/O error, a failing commit), so do all of them, and
  none of them happened.
* Claims and renewals need not survive a power cut, which takes their worker along: the task is then
  pending, as it would be after its lease. A batch of nothing else is committed without an fsync
  (`synchronous=NORMAL`); the next one of another kind makes it durable too. It still survives a
  killed process. Measured: half of the commits of a busy worker are such, and a disk takes about
  as long for one as the rest of a task does.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from adapters.stores.sqlite.batches import Call
from adapters.stores.sqlite.tables import Tables


class GroupCommit:
    """Runs batches of writes on one connection. Everything happens in the writer thread."""

    def __init__(self, connection: sqlite3.Connection, tables: Tables, durable: bool) -> None:
        """`durable`: whether a commit waits until the disk has it."""
        self._connection = connection
        self._tables = tables
        self._durable = durable
        self._synchronous = ""

    def run(self, calls: list[Call]) -> None:
        """Give each call its answer, once that is committed, or its error."""
        try:
            self._commit(calls)
        except sqlite3.OperationalError as error:
            for call in calls:
                call.fail(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, its caller is to hear of it
            self._isolate(calls, error)

    def _commit(self, calls: list[Call]) -> None:
        self._synchronize(any(call.durable for call in calls))
        with self._transaction():
            for call in calls:
                call.answer = call.operation()

    def _isolate(self, calls: list[Call], error: Exception) -> None:
        if len(calls) == 1:
            calls[0].fail(error)
        else:
            for call in calls:
                self.run([call])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        # IMMEDIATE: a transaction that reads first and writes later fails as soon as it writes.
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._tables.finish()
            self._connection.execute("COMMIT")
        except BaseException:
            self._tables.roll_back()
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        self._tables.committed()

    def _synchronize(self, durable: bool) -> None:
        wanted = "FULL" if durable and self._durable else "NORMAL"
        if wanted != self._synchronous:
            # It takes effect while it is compiled, so it must not come from the statement cache.
            self._connection.executescript(f"PRAGMA synchronous = {wanted}")
            self._synchronous = wanted
