"""How much room the file system has left, asked seldom: it changes slowly, and submits are many."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from domain.errors import StorageFull

_ASKED_EVERY_SECONDS: Final = 0.25
_DEFAULT_FLOOR_BYTES: Final = 64 * 1024 * 1024


class DiskUsage(NamedTuple):
    """The size of a file system, in bytes, and what of it is free for us."""

    total: int
    free: int


def disk_usage(path: Path) -> DiskUsage:
    """Ask the system."""
    usage = shutil.disk_usage(path)
    return DiskUsage(usage.total, usage.free)


class DiskFloor:
    """Below this many free bytes no more tasks are taken.

    SQLite needs room even to delete, so submits must stop before the disk is full.
    """

    def __init__(
        self,
        floor_bytes: int | None,
        usage: Callable[[], DiskUsage],
        monotonic: Callable[[], float],
    ) -> None:
        """`floor_bytes` None: 64 MiB, or a tenth of the file system where that is less."""
        self._usage = usage
        self._monotonic = monotonic
        self._latest = usage()
        self._asked_at = monotonic()
        self._floor_bytes = (
            min(_DEFAULT_FLOOR_BYTES, self._latest.total // 10)
            if floor_bytes is None
            else floor_bytes
        )

    def shortage(self) -> StorageFull | None:
        """What to tell those who submit; None while there is room."""
        now = self._monotonic()
        if now - self._asked_at >= _ASKED_EVERY_SECONDS:
            self._latest = self._usage()
            self._asked_at = now
        if self._latest.free >= self._floor_bytes:
            return None
        return StorageFull(self._latest.free, self._floor_bytes)
