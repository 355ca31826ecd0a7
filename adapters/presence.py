"""Which workers are there, as a store of one process remembers it."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from itertools import chain


class Presence:
    """What each worker said that it runs, and until when that holds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._here: dict[str, tuple[frozenset[str], float]] = {}

    def announce(self, worker: str, executors: Collection[str], seconds: float) -> None:
        """See `TaskQueue.announce`."""
        self._here[worker] = frozenset(executors), self._monotonic() + seconds

    def workers(self) -> Mapping[str, int]:
        """See `QueueView.workers`."""
        now = self._monotonic()
        self._here = {name: told for name, told in self._here.items() if told[1] >= now}
        return Counter(chain.from_iterable(executors for executors, _ in self._here.values()))
