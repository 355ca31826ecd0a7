"""What the answers of all endpoints of an OpenAI-compatible API have in common."""

import json
from collections.abc import Callable
from typing import Annotated, Any, Final, Protocol, TypeVar

import msgspec
from msgspec import Meta, Struct

from domain.errors import ExecutorFailed, ResultTooLarge
from domain.inference import LARGEST_INTEGER, InferenceResult, Usage

END_MARK: Final = b"[DONE]"

Quote = Callable[[str], str]
"""Makes text of a backend fit for an error message."""

Tokens = Annotated[int, Meta(ge=0, le=LARGEST_INTEGER)]
T = TypeVar("T")


class Answer(Protocol):
    """An answer of one endpoint, as it comes in."""

    @property
    def is_complete(self) -> bool:
        """Whether the end of the stream was seen."""
        ...

    def take(self, event: bytes) -> str:
        """Add an event of a stream, and give the text in it.

        Raises `ResultTooLarge`, the error that the event reports, and `ExecutorFailed` for what has
        no place in an answer.
        """
        ...

    def take_whole(self, text: bytes) -> str:
        """Take an answer that is not streamed; as `take` does."""
        ...

    def result(self) -> InferenceResult:
        """All that came. Raises `ExecutorFailed` if that was no answer of a model."""
        ...


def not_an_answer(reason: str) -> ExecutorFailed:
    """Not retried: a backend that is something else now will be so in a minute."""
    return ExecutorFailed(
        f"the backend's answer is not what was asked for: {reason}", retryable=False
    )


def decoded(decode: Callable[[bytes], T], text: bytes) -> T:
    """What this JSON text holds. Raises `ExecutorFailed`; a text that was cut may be retried."""
    try:
        return decode(text)
    except msgspec.ValidationError as error:
        raise not_an_answer("it has another shape") from error
    except (ValueError, RecursionError) as error:
        if _is_cut(text):
            raise ExecutorFailed("the backend's answer ended too early") from error
        raise not_an_answer("it is not JSON") from error


def _is_cut(text: bytes) -> bool:
    """Whether this would be JSON if it went on."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        at_the_end = error.pos >= len(error.doc.rstrip()) > 0
        return at_the_end or error.msg.startswith("Unterminated string")
    except (ValueError, RecursionError):
        return False
    return False


class Allowance:
    """How much of the result's bytes is left."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._left = max_bytes

    def spend(self, size: int) -> None:
        """Raises `ResultTooLarge` once there is nothing left."""
        self._left -= size
        if self._left < 0:
            raise ResultTooLarge(self._max_bytes)


class _ReportedUsage(Struct, frozen=True):
    """Both dialects of it: that of completions, and that of responses."""

    total_tokens: Tokens
    prompt_tokens: Tokens | None = None
    completion_tokens: Tokens | None = None
    input_tokens: Tokens | None = None
    output_tokens: Tokens | None = None


def usage_of(reported: Any, output_tokens: int | None = None) -> Usage | None:
    """The usage, where it is reported as it should be.

    `output_tokens` is what an endpoint that writes no text, and so reports none, has.
    """
    try:
        usage = msgspec.convert(reported, _ReportedUsage)
    except msgspec.ValidationError:
        return None
    read = usage.prompt_tokens if usage.input_tokens is None else usage.input_tokens
    written = usage.completion_tokens if usage.output_tokens is None else usage.output_tokens
    written = output_tokens if written is None else written
    if read is None or written is None:
        return None
    return Usage(read, written, usage.total_tokens)
