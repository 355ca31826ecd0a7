"""What an upstream's refusal means: which error, whether to try again, and when."""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import msgspec

from domain.errors import ExecutorError, ExecutorFailed, ExecutorUnavailable, UpstreamRejected
from domain.retry import LONGEST_RETRY_AFTER_SECONDS

HTTP_ERRORS: Final = range(300, 600)
RETRIED_STATUSES: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
MOST_QUOTED_CHARACTERS: Final = 100


def refusal(status: int, quote: str, *, retry_after_seconds: float | None = None) -> ExecutorError:
    """The error for an HTTP status that is not a success. `quote`: what the upstream said."""
    message = (
        f"the backend answered {status}: {quote}" if quote else f"the backend answered {status}"
    )
    retried = status in RETRIED_STATUSES
    if status == 429 or status >= 500:
        return ExecutorUnavailable(
            message, retryable=retried, retry_after_seconds=retry_after_seconds
        )
    if retried:
        return ExecutorFailed(message, retry_after_seconds=retry_after_seconds)
    return UpstreamRejected(message)


def reported(error: Any, quote: Callable[[str], str]) -> ExecutorError:
    """The error for one that came with a success: its `code` counts as a status, if it can be."""
    fields = error if isinstance(error, dict) else {"message": error}
    said_so = quote(str(fields.get("message") or error))
    code = fields.get("code")
    if isinstance(code, int) and code in HTTP_ERRORS:
        return refusal(code, said_so)
    return ExecutorFailed(f"the backend gave up: {said_so}")


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds to wait by a `Retry-After` header: 0 … 300; None for none, and for rubbish."""
    if value is None:
        return None
    seconds = _as_number(value)
    if seconds is None:
        seconds = _as_date(value, now)
    if seconds is None or math.isnan(seconds):
        return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_SECONDS)


def _as_number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _as_date(value: str, now: datetime) -> float | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    # A zone of "-0000" gives a date without a zone; HTTP dates are always UTC.
    return (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds()


class _Fault(msgspec.Struct):
    message: str


class _Refused(msgspec.Struct):
    error: _Fault | str


def said(body: bytes) -> str:
    """What an error body says, in the shape of OpenAI (`error.message`), else as it stands."""
    try:
        error = msgspec.json.decode(body, type=_Refused).error
    except (ValueError, RecursionError):
        return body.decode(errors="replace")
    return error if isinstance(error, str) else error.message


def quoted(text: str, secrets: list[str]) -> str:
    """Text of an upstream, fit for an error message: one line, short, without our secrets."""
    for secret in secrets:
        text = text.replace(secret, "***")
    printable = "".join(letter if letter.isprintable() else " " for letter in text[:1000])
    return " ".join(printable.split())[:MOST_QUOTED_CHARACTERS]
