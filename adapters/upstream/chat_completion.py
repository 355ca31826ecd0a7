"""What a chat completions API answers, streamed or whole, as far as it is of use here."""

import io
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from domain.errors import ExecutorFailed, ResultTooLarge
from domain.inference import LARGEST_INTEGER, InferenceResult, Usage

Tokens = Annotated[int, Meta(ge=0, le=LARGEST_INTEGER)]


class Text(Struct, frozen=True):
    """What the model wrote; no content where it has nothing to say in words."""

    content: str | None = None


class Choice(Struct, frozen=True):
    """One of the answers of the model: `delta` when streamed, `message` when whole."""

    index: int = 0
    delta: Text | None = None
    message: Text | None = None


class Answer(Struct, frozen=True):
    """A `chat.completion`, or one `chat.completion.chunk`."""

    choices: list[Choice] | None = None
    usage: Any = None
    error: Any = None


class ReportedUsage(Struct, frozen=True):
    """The usage, where it is reported as it should be."""

    prompt_tokens: Tokens
    completion_tokens: Tokens
    total_tokens: Tokens


_decode = msgspec.json.Decoder(Answer).decode


def parsed(data: bytes) -> Answer:
    """The answer in this JSON text. Raises `ExecutorFailed` if there is none."""
    try:
        return _decode(data)
    except msgspec.ValidationError as error:
        raise not_a_completion("it has another shape") from error
    except (ValueError, RecursionError) as error:
        raise not_a_completion("it is not JSON") from error


def not_a_completion(reason: str) -> ExecutorFailed:
    """Not retried: a backend that is something else now will be so in a minute."""
    return ExecutorFailed(
        f"the backend's answer is not a chat completion: {reason}", retryable=False
    )


class Completion:
    """The text of the first choice, and the usage, as they come in."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._text = io.StringIO()
        self._usage: Usage | None = None
        self._has_choice = False

    def take(self, answer: Answer) -> str:
        """Add a part of the answer, and give the text in it. Raises `ResultTooLarge`."""
        if answer.choices is None:
            raise not_a_completion("it has no choices")
        self._usage = _usage(answer.usage) or self._usage
        return "".join(self._take_text(choice) for choice in answer.choices if choice.index == 0)

    def result(self) -> InferenceResult:
        """All that came. Raises `ExecutorFailed` if that was no answer of a model."""
        if not self._has_choice:
            raise not_a_completion("it has no choices")
        return InferenceResult(self._text.getvalue(), self._usage)

    def _take_text(self, choice: Choice) -> str:
        part = choice.delta or choice.message
        if part is None:
            return ""
        self._has_choice = True
        text = part.content or ""
        self._bytes += len(text.encode())
        if self._bytes > self._max_bytes:
            raise ResultTooLarge(self._max_bytes)
        self._text.write(text)
        return text


def _usage(reported: Any) -> Usage | None:
    try:
        usage = msgspec.convert(reported, ReportedUsage)
    except msgspec.ValidationError:
        return None
    return Usage(usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)
