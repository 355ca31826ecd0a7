"""The order of claims."""

from collections.abc import Iterator

from adapters.stores.memory.queues import SortedQueue
from adapters.stores.memory.rows import Row
from domain.ports import LONGEST_POSITION
from domain.task import TaskStatus


class Turns:
    """The pending tasks of one executor.

    One that is not due waits aside, sorted by when it will be; then it stands in turn, sorted by
    rank. So a high priority makes no task early, and no claim walks past those that wait. A claimed
    task is taken out; one that ends while it is pending becomes stale.
    """

    def __init__(self) -> None:
        self._waiting = SortedQueue(lambda row: row.task.due_at, _has_left)
        self._in_turn = SortedQueue(lambda row: row.task.rank, _has_left)

    def add(self, row: Row, now: int) -> None:
        """A task that just became pending."""
        queue = self._in_turn if row.task.due_at <= now else self._waiting
        queue.push(row)

    def first(self, now: int) -> Row | None:
        """The due task whose turn is next."""
        self._ripen(now)
        return self._in_turn.first()

    def take(self, most: int, now: int) -> Iterator[Row]:
        """So many due tasks, in turn. Those past their deadline are left to `expire`."""
        self._ripen(now)
        while most > 0 and (row := self._in_turn.pop()) is not None:
            if not row.task.overdue(now):
                yield row
                most -= 1

    def position(self, row: Row, now: int) -> int:
        """The place of this due task, from 1."""
        self._ripen(now)
        return 1 + self._in_turn.number_before(row, LONGEST_POSITION - 1)

    def _ripen(self, now: int) -> None:
        """Let those that became due stand in turn."""
        while (row := self._waiting.first()) is not None and row.task.due_at <= now:
            self._waiting.pop()
            self._in_turn.push(row)


def _has_left(row: Row) -> bool:
    return row.task.status is not TaskStatus.PENDING
