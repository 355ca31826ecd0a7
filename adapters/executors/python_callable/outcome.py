"""What a function gave or raised, in the words of the domain."""

from typing import Any, Final

from domain.errors import (
    ExecutorCrashed,
    ExecutorError,
    ExecutorFailed,
    ResultNotStorable,
    ResultTooLarge,
)
from domain.inference import InferenceResult

_LONGEST_TEXT: Final = 500


def result_of(value: Any) -> InferenceResult:
    """What was returned: an output, or a whole result, with usage perhaps."""
    return value if isinstance(value, InferenceResult) else InferenceResult(value)


class TextOutput:
    """Checks the pieces that a generator yields, and counts them."""

    def __init__(self, max_result_bytes: int) -> None:
        self._max_result_bytes = max_result_bytes
        self._bytes = 0

    def take(self, piece: Any) -> str:
        """The next piece. Raises an `ExecutorError` if it is not text, or too much of it."""
        if not isinstance(piece, str):
            kind = type(piece).__name__
            raise ExecutorFailed(f"a generator yields text, not a {kind}", retryable=False)
        try:
            self._bytes += len(piece.encode())
        except UnicodeEncodeError as error:
            raise ResultNotStorable(str(error)) from error
        if self._bytes > self._max_result_bytes:
            raise ResultTooLarge(self._max_result_bytes)
        return piece


def failure_of(error: BaseException) -> ExecutorError:
    """An `ExecutorError` is taken as it is; anything else may go better the next time.

    But nobody claims a crash who lives to tell.
    """
    if isinstance(error, ExecutorError) and not isinstance(error, ExecutorCrashed):
        return error
    return ExecutorFailed(worded(error))


def worded(error: BaseException) -> str:
    """The error's type and text."""
    kind = type(error).__name__
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an error of somebody else's, which may break in turn
        return kind
    return shown(f"{kind}: {text}") if text else kind


def shown(text: str) -> str:
    """The text, cut to what an error may say."""
    return text[:_LONGEST_TEXT].encode(errors="replace").decode()
