"""Whether a failed attempt is followed by another, and when: a policy that answers with values."""

from typing import Final

from msgspec import Struct

from domain.errors import ExecutorError

LONGEST_RETRY_AFTER_SECONDS: Final = 300.0
_LARGEST_EXPONENT: Final = 62


class RetryIn(Struct, frozen=True):
    """Another attempt may start after this many seconds."""

    seconds: float


class GiveUp(Struct, frozen=True):
    """No other attempt follows."""


class RetryPolicy(Struct, frozen=True):
    """Exponential backoff with full jitter.

    The wait is uniform over 0 … min(max_seconds, base_seconds * 2^(failures - 1)), so that many
    tasks which failed together do not come back together (M. Brooker, "Exponential Backoff and
    Jitter", AWS Architecture Blog, 2015).
    """

    base_seconds: float
    max_seconds: float

    def decide(
        self, error: ExecutorError, *, failures: int, max_attempts: int, roll: float
    ) -> RetryIn | GiveUp:
        """Judge an attempt that just failed.

        `failures` includes it. `roll` is a random number of 0 … 1. What the backend asked for
        (`Retry-After`) is waited for at least, up to five minutes.
        """
        if not error.retryable or failures >= max_attempts:
            return GiveUp()
        ceiling = min(
            self.max_seconds, self.base_seconds * 2 ** min(failures - 1, _LARGEST_EXPONENT)
        )
        asked = min(error.retry_after_seconds or 0.0, LONGEST_RETRY_AFTER_SECONDS)
        return RetryIn(max(roll * ceiling, asked))
