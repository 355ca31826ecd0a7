"""An order from which the first is taken, and the rest may leave without being searched for."""

from collections import deque
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from typing import Final, Generic, TypeVar

from adapters.stores.memory.rows import Entry, Row

STALE_BORNE: Final = 1_000
"""So many more stale entries than others may lie around."""

E = TypeVar("E", Row, Entry)


class SortedQueue(Generic[E]):
    """Entries in their order. Most come in it, and are kept in a plain queue; the rest in a heap.

    An entry may become stale where it is. It is dropped when it comes up, and with its like
    whenever the queue has doubled.
    """

    def __init__(self, is_stale: Callable[[E], bool]) -> None:
        self._is_stale: Callable[[E], bool] = is_stale
        self._in_order: deque[E] = deque()
        self._others: list[E] = []
        self._most = STALE_BORNE

    def __len__(self) -> int:
        """All entries, stale or not."""
        return len(self._in_order) + len(self._others)

    def push(self, entry: E) -> None:
        """Put this one in its place."""
        if len(self) >= self._most:
            self._drop_stale()
        if not self._in_order or self._in_order[-1] < entry:
            self._in_order.append(entry)
        else:
            heappush(self._others, entry)

    def first(self) -> E | None:
        """The first one."""
        in_order, others = self._in_order, self._others
        while others and self._is_stale(others[0]):
            heappop(others)
        while in_order and self._is_stale(in_order[0]):
            in_order.popleft()
        if others and (not in_order or others[0] < in_order[0]):
            return others[0]
        return in_order[0] if in_order else None

    def pop(self) -> E | None:
        """The first one, taken out."""
        entry = self.first()
        if entry is None:
            return None
        return heappop(self._others) if self._is_other(entry) else self._in_order.popleft()

    def number_before(self, bound: E, most: int) -> int:
        """How many there are before this one, counted up to `most`."""
        number = 0
        for entry in self._before(bound):
            number += not self._is_stale(entry)
            if number >= most:
                break
        return number

    def _is_other(self, entry: E) -> bool:
        return bool(self._others) and self._others[0] is entry

    def _before(self, bound: E) -> Iterator[E]:
        """All before this one, in no order. Of the heap, only what must be is looked at."""
        for entry in self._in_order:
            if not entry < bound:
                break
            yield entry
        unseen = [0]
        while unseen:
            at = unseen.pop()
            if at < len(self._others) and self._others[at] < bound:
                yield self._others[at]
                unseen += (2 * at + 1, 2 * at + 2)

    def _drop_stale(self) -> None:
        self._in_order = deque(entry for entry in self._in_order if not self._is_stale(entry))
        self._others = [entry for entry in self._others if not self._is_stale(entry)]
        heapify(self._others)
        self._most = 2 * len(self) + STALE_BORNE
