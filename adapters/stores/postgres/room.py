"""When a submit has to make room first: a comparison of numbers, most of the time.

What the statements say in passing (the total, the age of the oldest finished task) is enough to
tell when there can be something to remove. Nothing here goes by this machine's wall clock: an age
told by the server is followed by the monotonic clock.
"""

from math import inf
from typing import Final

from domain.retention import RetentionPolicy

_LOOK_AGAIN_SECONDS: Final = 1.0


class Room:
    """What is known of the tasks kept, by all processes, since this one last looked."""

    def __init__(self) -> None:
        self.total = 0
        self._looked: dict[RetentionPolicy, float] = {}

    def is_short(self, retention: RetentionPolicy, arriving: int, monotonic: float) -> bool:
        """Whether there may be something to remove before so many tasks are stored."""
        if retention.excess(self.total, arriving):
            return True
        return monotonic >= self._looked.get(retention, 0.0)

    def looked(
        self, retention: RetentionPolicy, total: int, oldest_seconds: float | None, monotonic: float
    ) -> None:
        """So many tasks are left; the oldest finished one ended so long ago (None: there is none).

        Before `retention_seconds` have passed since it ended, age removes nothing.
        """
        self.total = total
        left = (retention.retention_seconds or inf) - (oldest_seconds or 0.0)
        self._looked[retention] = monotonic + max(_LOOK_AGAIN_SECONDS, left)
