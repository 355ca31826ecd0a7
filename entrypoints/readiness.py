"""Whether this process can do its work, right now: the truth behind `/readyz` and health."""

from collections import Counter
from collections.abc import Callable


class Readiness:
    """Collects what keeps the process from working.

    Loops report by ticking: one that has not ticked for `stalled_after_seconds` has stopped.
    Anything else reports a fault under a name of its own, and takes it back when it is over.
    """

    def __init__(self, monotonic: Callable[[], float], stalled_after_seconds: float = 3.0) -> None:
        self._monotonic = monotonic
        self._stalled_after_seconds = stalled_after_seconds
        self._ticked_at: dict[str, float] = {}
        self._faults: dict[str, str] = {"start": "starting"}
        self.ticks: Counter[str] = Counter()  # of each loop, since it began

    def tick(self, loop: str) -> None:
        """A loop did a whole round. From its first tick on it is expected to go on ticking."""
        self._ticked_at[loop] = self._monotonic()
        self.ticks[loop] += 1

    def fault(self, name: str, reason: str) -> None:
        """Something keeps the process from working until `clear` is called with the same name."""
        self._faults[name] = reason

    def clear(self, name: str) -> None:
        """The fault of that name is over; none of that name is fine too."""
        self._faults.pop(name, None)

    def faults(self) -> dict[str, str]:
        """What is wrong, by name; empty when the process is ready."""
        oldest = self._monotonic() - self._stalled_after_seconds
        stalled = {loop: "stopped" for loop, at in self._ticked_at.items() if at < oldest}
        return self._faults | stalled
