"""Instants are whole microseconds since the epoch (UTC); durations are seconds, often fractions."""


def after(instant: int, seconds: float) -> int:
    """The instant this many seconds later."""
    return instant + round(seconds * 1_000_000)


def before(instant: int, seconds: float) -> int:
    """The instant this many seconds earlier."""
    return instant - round(seconds * 1_000_000)


def seconds_between(earlier: int, later: int) -> float:
    """The seconds from one instant to the other; negative where `later` comes first."""
    return (later - earlier) / 1_000_000
