"""The machine's own clock."""

import time


class SystemClock:
    """Wall and monotonic time of this machine."""

    def now(self) -> int:
        """Microseconds since the epoch, UTC."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Seconds since some fixed moment."""
        return time.monotonic()
