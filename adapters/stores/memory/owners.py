"""What an owner may ask for: lists of all tasks, and counts of the live ones."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator

from adapters.stores.memory.queues import STALE_BORNE
from adapters.stores.memory.rows import Row
from domain.query import Position, TaskQuery


class Owned:
    """The tasks of one owner: all of them by creation, and the live ones by id.

    Removed tasks leave their rows behind in the list, until it has doubled.
    """

    def __init__(self) -> None:
        self.live: dict[str, Row] = {}
        self._rows: list[Row] = []
        self._most = STALE_BORNE

    def add(self, row: Row) -> None:
        """A task that was just accepted."""
        if len(self._rows) >= self._most:
            self._rows = [kept for kept in self._rows if not kept.is_removed]
            self._most = 2 * len(self._rows) + STALE_BORNE
        self.live[row.task.id] = row
        if self._rows and row.created_at < self._rows[-1].created_at:  # the clock was set back
            insort(self._rows, row, key=place)
        else:
            self._rows.append(row)

    def walk(self, query: TaskQuery) -> Iterator[Row]:
        """The tasks between the bounds of this query, from its start on, in its order."""
        low, high = self._bounds(query)
        steps = range(high - 1, low - 1, -1) if query.newest_first else range(low, high)
        return (self._rows[at] for at in steps if not self._rows[at].is_removed)

    def _bounds(self, query: TaskQuery) -> tuple[int, int]:
        low, high = 0, len(self._rows)
        if query.created_after is not None:
            low = bisect_right(self._rows, query.created_after, key=_created_at)
        if query.created_before is not None:
            high = bisect_left(self._rows, query.created_before, key=_created_at)
        if query.start is None:
            return low, high
        if query.newest_first:
            return low, min(high, bisect_left(self._rows, place(query.start), key=place))
        return max(low, bisect_right(self._rows, place(query.start), key=place)), high


def place(one: Row | Position) -> tuple[int, int]:
    """A place in the order of creation."""
    return one.created_at, one.number


def _created_at(row: Row) -> int:
    return row.created_at
