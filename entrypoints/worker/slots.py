"""How many attempts may run: a limit per executor, inside one for all of them."""

from collections import Counter, deque
from collections.abc import Collection, Mapping


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

    def deal(self, executors: Collection[str]) -> dict[str, int]:
        """Shares of the free slots, above 0 each, for those of these executors that have room.

        As even as their limits allow; what cannot be halved goes to another one each time. So the
        sum never passes what is free, and no executor waits for another's tasks.
        """
        free = self._total - self._taken.total()
        self._turn.rotate()
        rooms = [(self._room(name, free), name) for name in self._turn if name in executors]
        shares = {}
        for position, (room, name) in enumerate(sorted(rooms, key=lambda pair: pair[0])):
            share = min(room, free // (len(rooms) - position))
            free -= share
            if share > 0:
                shares[name] = share
        return shares

    def _room(self, executor: str, free: int) -> int:
        return max(0, min(free, self._limits[executor] - self._taken[executor]))
