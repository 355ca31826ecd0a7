"""Instants as RFC 3339 has them, and back."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_MICROSECONDS: Final = 1_000_000  # in a second


@lru_cache(4096)  # clients ask for one task many times, and an attempt's instants are its task's
def timestamp(instant: int) -> str:
    """An instant (microseconds since the epoch) as RFC 3339, UTC, always with six digits."""
    second, microseconds = divmod(instant, _MICROSECONDS)
    return f"{_second(second)}.{str(microseconds).rjust(6, '0')}Z"


@lru_cache(4096)  # what is asked for together mostly happened within the same few seconds
def _second(second: int) -> str:
    return (_EPOCH + timedelta(seconds=second)).replace(tzinfo=None).isoformat()


@lru_cache(4096)  # as `timestamp`
def timestamp_or_none(instant: int | None) -> str | None:
    """The same where there may be none."""
    return None if instant is None else timestamp(instant)


def instant_of(moment: datetime) -> int:
    """The instant of a time with an offset."""
    return (moment - _EPOCH) // _MICROSECOND
