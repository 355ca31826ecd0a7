"""The order of claims."""

from adapters.stores.memory.queues import SortedQueue
from adapters.stores.memory.rows import Entry, Row
from domain.ports import LONGEST_POSITION


class Turns:
    """The pending tasks of one executor.

    One that is not due waits aside, sorted by when it will be; then it stands in turn, sorted by
    rank. So a high rank makes no task early, and no claim walks past those that wait. A claimed
    task is taken out; one that ends while it is pending is skipped.
    """

    def __init__(self) -> None:
        self._waiting: SortedQueue[Entry] = SortedQueue(_has_left)
        self._in_turn: SortedQueue[Entry] = SortedQueue(_has_left)

    def add(self, row: Row, now: int) -> None:
        """A task that just became pending."""
        if row.task.due_at <= now:
            self._in_turn.push(_turn(row))
        else:
            self._waiting.push(Entry(row.task.due_at, row.number, row))

    def first(self, now: int) -> Row | None:
        """The due task whose turn is next."""
        self._ripen(now)
        turn = self._in_turn.first()
        return None if turn is None else turn.row

    def take(self, now: int) -> Row | None:
        """The due task whose turn is next, taken out. One past its deadline is left to `expire`."""
        self._ripen(now)
        while (turn := self._in_turn.pop()) is not None:
            if not turn.row.task.overdue(now):
                return turn.row
        return None

    def position(self, row: Row, now: int) -> int:
        """The place of this due task, from 1."""
        self._ripen(now)
        return 1 + self._in_turn.number_before(_turn(row), LONGEST_POSITION - 1)

    def _ripen(self, now: int) -> None:
        """Let those that became due stand in turn."""
        while (entry := self._waiting.first()) is not None and entry.instant <= now:
            self._waiting.pop()
            self._in_turn.push(_turn(entry.row))


def _turn(row: Row) -> Entry:
    return Entry(row.task.rank, row.number, row)


def _has_left(entry: Entry) -> bool:
    return not entry.row.is_pending
