"""What the completions APIs answer, that for chats and the older one, streamed or whole."""

import io
from typing import Any

import msgspec
from msgspec import Struct

from adapters.upstream.answer import (
    END_MARK,
    Allowance,
    Quote,
    decoded,
    not_an_answer,
    usage_of,
)
from adapters.upstream.refusal import reported
from adapters.upstream.tool_calls import ToolCall, ToolCalls
from domain.inference import InferenceResult, Usage


class Message(Struct, frozen=True):
    """What the model wrote; no content where it has nothing to say in words.

    Servers disagree about what reasoning is called.
    """

    content: str | None = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: list[ToolCall] | None = None


class Choice(Struct, frozen=True):
    """One of the answers of the model.

    For a chat, `delta` when streamed, `message` when whole; else `text`, streamed or whole.
    """

    index: int = 0
    delta: Message | None = None
    message: Message | None = None
    text: str | None = None
    finish_reason: str | None = None


class Completion(Struct, frozen=True):
    """A `chat.completion`, a `text_completion`, or one event of either."""

    choices: list[Choice] | None = None
    usage: Any = None
    error: Any = None


_decode = msgspec.json.Decoder(Completion).decode


class Choices:
    """The first choice, and the usage. See `Answer`."""

    def __init__(self, max_bytes: int, quote: Quote) -> None:
        self._quote = quote
        self._allowance = Allowance(max_bytes)
        self._text = io.StringIO()
        self._reasoning = io.StringIO()
        self._tool_calls = ToolCalls(self._allowance)
        self._finish_reason: str | None = None
        self._usage: Usage | None = None
        self._has_choice = False
        self.is_complete = False

    def take(self, event: bytes) -> str:
        """See `Answer.take`."""
        if event == END_MARK:
            self.is_complete = True
            return ""
        return self.take_whole(event)

    def take_whole(self, text: bytes) -> str:
        """See `Answer.take_whole`: it has the shape of an event."""
        completion = decoded(_decode, text)
        if completion.error is not None:
            raise reported(completion.error, self._quote)
        if completion.choices is None:
            raise not_an_answer("it has no choices")
        self._usage = usage_of(completion.usage) or self._usage
        return "".join(self._take(choice) for choice in completion.choices if choice.index == 0)

    def result(self) -> InferenceResult:
        """See `Answer.result`."""
        if not self._has_choice:
            raise not_an_answer("it has no choices")
        details = {
            "finish_reason": self._finish_reason,
            "reasoning": self._reasoning.getvalue(),
            "tool_calls": self._tool_calls.all(),
        }
        present = {name: value for name, value in details.items() if value}
        return InferenceResult(self._text.getvalue(), self._usage, present)

    def _take(self, choice: Choice) -> str:
        self._finish_reason = choice.finish_reason or self._finish_reason
        message = choice.delta or choice.message
        if message is None and choice.text is None:
            return ""
        self._has_choice = True
        if message is None:
            return self._write(choice.text)
        self._take_reasoning(message.reasoning_content or message.reasoning)
        for call in message.tool_calls or ():
            self._tool_calls.take(call)
        return self._write(message.content)

    def _take_reasoning(self, reasoning: Any) -> None:
        if isinstance(reasoning, str):
            self._allowance.spend(len(reasoning.encode()))
            self._reasoning.write(reasoning)

    def _write(self, text: str | None) -> str:
        text = text or ""
        self._allowance.spend(len(text.encode()))
        self._text.write(text)
        return text
