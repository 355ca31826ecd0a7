"""Instants as RFC 3339 has them, and back."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@lru_cache(256)  # each instant of an attempt is one of its task, too
def timestamp(instant: int) -> str:
    """An instant (microseconds since the epoch) as RFC 3339, UTC, always with six digits."""
    moment = _EPOCH + timedelta(microseconds=instant)
    return moment.isoformat(timespec="microseconds")[:-6] + "Z"


def timestamp_or_none(instant: int | None) -> str | None:
    """The same where there may be none."""
    return None if instant is None else timestamp(instant)


def instant_of(moment: datetime) -> int:
    """The instant of a time with an offset."""
    return (moment - _EPOCH) // _MICROSECOND
