"""Whether a backend is worth another attempt, judged by how the last ones went.

    closed ──(10 of the last 20 failed)──> open ──(a probe was answered)──> ramp
      ^                                     ^                                 │
      │                                     └──────────(one failed)───────────┤
      └──────────────(each success doubles the room: 1, 2, 4 … 64)────────────┘

Closed lets all attempts through, open none. The ramp lets in one attempt, then twice as many after
each that succeeded, so that a backend which is just back meets no herd. Attempts that began before
the breaker opened tell of the past: how they end counts for nothing.
"""

from collections import deque
from typing import Final

_WINDOW: Final = 20
_OPENS_AT_FAILURES: Final = _WINDOW // 2
_RAMP_ENDS_AT: Final = 64


class Breaker:
    """The breaker of one backend. It knows no clock: who owns it sends the probes."""

    def __init__(self) -> None:
        self._last: deque[bool] = deque(maxlen=_WINDOW)
        self._most: int | None = None  # at once; None: it is closed
        self._era = 0  # how often it opened
        self._running = 0  # of this era

    @property
    def is_open(self) -> bool:
        """Whether only a probe can find out that the backend is back."""
        return self._most == 0

    def room(self) -> int | None:
        """For how many more attempts there is room; None: for any number."""
        return None if self._most is None else max(0, self._most - self._running)

    def begin(self) -> int:
        """An attempt begins. Gives its era, which `end` wants to know."""
        self._running += 1
        return self._era

    def end(self, era: int, is_well: bool | None) -> None:
        """It is over; `is_well` tells how the backend did, None that nobody knows."""
        if era != self._era:
            return
        self._running -= 1
        if is_well is None:
            return
        self._last.append(is_well)
        if is_well:
            self._widen()
        elif self._most is not None or self._last.count(False) >= _OPENS_AT_FAILURES:
            self._open()

    def found_alive(self) -> None:
        """A probe was answered: begin the ramp."""
        if self.is_open:
            self._most = 1

    def _widen(self) -> None:
        if self._most is not None:
            self._most = self._most * 2 if self._most * 2 < _RAMP_ENDS_AT else None

    def _open(self) -> None:
        self._most = 0
        self._era += 1
        self._running = 0
        self._last.clear()
