"""One transaction for all that waits: group commit for writes, one snapshot for reads.

* A write that fails by itself takes the transaction with it; the writes are then repeated one by
  one, so that only the failing one is answered with its error.
* Where the database fails (a full disk, an I/O error, a failing commit), so do all of them, and
  none of them happened.
* Claims and renewals need not survive a power cut, which takes their worker along: the task is then
  pending, as it would be after its lease. A batch of nothing else is committed without an fsync
  (`synchronous=NORMAL`); the next one of another kind makes it durable too. It still survives a
  killed process. About half of the commits of a worker are such, and an idle service starts a task
  one fsync sooner.
"""

import sqlite3

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
        try:
            with self._connection:
                # A transaction that reads before it has the lock may fail as soon as it writes.
                self._connection.execute("BEGIN IMMEDIATE")
                for call in calls:
                    call.answer = call.operation()
                self._tables.finish()
        except BaseException:
            self._tables.roll_back()
            raise
        self._tables.committed()

    def _isolate(self, calls: list[Call], error: Exception) -> None:
        if len(calls) == 1:
            calls[0].fail(error)
        else:
            for call in calls:
                self.run([call])

    def _synchronize(self, durable: bool) -> None:
        wanted = "FULL" if durable and self._durable else "NORMAL"
        if wanted != self._synchronous:
            # It takes effect while it is compiled, so it must not come from the statement cache.
            self._connection.executescript(f"PRAGMA synchronous = {wanted}")
            self._synchronous = wanted


def read_together(connection: sqlite3.Connection, calls: list[Call]) -> None:
    """Answer reads from one snapshot, which spares each the locks of its own."""
    try:
        with connection:
            connection.execute("BEGIN")
            for call in calls:
                call.answer = call.operation()
    except Exception as error:  # noqa: BLE001 - whatever it is, its caller is to hear of it
        for call in calls:
            call.fail(error)
