"""How many attempts may run: a limit per executor, inside one for all of them."""

from collections import Counter, deque
from collections.abc import Mapping


class Slots:
    """Counts the slots that are taken, and deals out those that are free."""

    def __init__(self, total: int, limits: Mapping[str, int]) -> None:
        """`limits` names every executor; a limit above `total` means no limit of its own."""
        self._total = total
        self._limits = limits
        self._taken: Counter[str] = Counter()
        self._turn = deque(limits)

    def take(self, executor: str) -> None:
        """An attempt begins."""
        self._taken[executor] += 1

    def free(self, executor: str) -> None:
        """An attempt is over, and its executor let go of it."""
        self._taken[executor] -= 1

    def deal(self, executors: Mapping[str, int | None]) -> dict[str, int]:
        """Shares of the free slots, above 0 each, for those of these executors that have room.

        Each takes at most as many as stand beside its name; None: it says nothing about that.

        As even as their limits allow; what cannot be halved goes to another one each time. So the
        sum never passes what is free, and no executor waits for another's tasks.
        """
        free = self._total - self._taken.total()
        self._turn.rotate()
        asked = [name for name in self._turn if name in executors]
        rooms = [(self._room(name, free, executors[name]), name) for name in asked]
        shares = {}
        for position, (room, name) in enumerate(sorted(rooms, key=lambda pair: pair[0])):
            share = min(room, free // (len(rooms) - position))
            free -= share
            if share > 0:
                shares[name] = share
        return shares

    def _room(self, executor: str, free: int, wanted: int | None) -> int:
        most = free if wanted is None else min(free, wanted)
        return max(0, min(most, self._limits[executor] - self._taken[executor]))
