"""What a child writes to its standard output and error.

It is the function's, not ours: it may be huge, and may quote inputs. So the beginning of what an
attempt printed is one event of the log, at the level `debug`, and the rest is only counted.
"""

from typing import Any, Final

import structlog

_KEPT_BYTES: Final = 2_000

log = structlog.get_logger()


class Prints:
    """Takes what one child prints, in the pieces in which it comes."""

    def __init__(self) -> None:
        self._kept = b""
        self._dropped = 0

    def feed(self, data: bytes) -> None:
        """Take a piece, however large."""
        kept = data[: _KEPT_BYTES - len(self._kept)]
        self._kept += kept
        self._dropped += len(data) - len(kept)

    def report(self, **facts: Any) -> None:
        """Log what came since the last report, with these facts, and forget it."""
        if self._kept:
            lines = self._kept.decode(errors="replace").splitlines()
            log.debug("callable_printed", lines=lines, dropped_bytes=self._dropped, **facts)
        self._kept, self._dropped = b"", 0
