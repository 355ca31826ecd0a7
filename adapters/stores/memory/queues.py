"""An order from which the first is taken, and the rest may leave without being searched for."""

from collections import deque
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Final

from msgspec import Struct

from adapters.stores.memory.rows import Row

STALE_BORNE: Final = 1_000
"""So many more stale entries than others may lie around."""


class _Entry(Struct, frozen=True, order=True, gc=False):
    """A row's place in the order."""

    instant: int
    number: int
    row: Row

    @property
    def place(self) -> tuple[int, int]:
        """What tells it from all others."""
        return self.instant, self.number


class SortedQueue:
    """Rows, sorted by an instant of theirs; ties fall to acceptance.

    Most come in this order, and are kept in a plain queue, however long; the others in a heap. A
    row may become stale where it is. It is dropped when it comes up, and with its like whenever
    there are twice as many as after the last time.
    """

    def __init__(self, instant: Callable[[Row], int], is_stale: Callable[[Row], bool]) -> None:
        """`instant` of a row does not change until it is stale."""
        self._instant = instant
        self._is_stale = is_stale
        self._in_order: deque[Row] = deque()
        self._others: list[_Entry] = []
        self._latest = (0, 0)
        self._most = STALE_BORNE

    def push(self, row: Row) -> None:
        """Put this row in its place."""
        if len(self._in_order) + len(self._others) >= self._most:
            self._drop_stale()
        place = self._place(row)
        if not self._in_order or place > self._latest:
            self._latest = place
            self._in_order.append(row)
        else:
            heappush(self._others, _Entry(*place, row))

    def first(self) -> Row | None:
        """The first one."""
        in_order, others = self._in_order, self._others
        while others and self._is_stale(others[0].row):
            heappop(others)
        while in_order and self._is_stale(in_order[0]):
            in_order.popleft()
        if others and (not in_order or others[0].place < self._place(in_order[0])):
            return others[0].row
        return in_order[0] if in_order else None

    def pop(self) -> Row | None:
        """The first one, taken out."""
        row = self.first()
        if row is None:
            return None
        if self._others and self._others[0].row is row:
            return heappop(self._others).row
        return self._in_order.popleft()

    def number_before(self, row: Row, most: int) -> int:
        """How many there are before this one, counted up to `most`."""
        return sum(1 for _ in islice(self._before(self._place(row)), most))

    def _place(self, row: Row) -> tuple[int, int]:
        return self._instant(row), row.number

    def _before(self, bound: tuple[int, int]) -> Iterator[Row]:
        """All before this place, in no order. Of the heap, only what must be is looked at."""
        for row in self._in_order:
            if self._is_stale(row):
                continue
            if self._place(row) >= bound:
                break
            yield row
        unseen = [0]
        while unseen:
            at = unseen.pop()
            if at < len(self._others) and self._others[at].place < bound:
                unseen += (2 * at + 1, 2 * at + 2)
                if not self._is_stale(self._others[at].row):
                    yield self._others[at].row

    def _drop_stale(self) -> None:
        self._in_order = deque(row for row in self._in_order if not self._is_stale(row))
        self._others = [entry for entry in self._others if not self._is_stale(entry.row)]
        heapify(self._others)
        self._most = 2 * (len(self._in_order) + len(self._others)) + STALE_BORNE
