"""What a responses API answers, streamed or whole, as far as it is of use here.

The text comes in events of its own; all else is taken from the whole response, which stands in the
last event. Calls of tools and reasoning are told as the chat completions API would.
"""

import io
from collections.abc import Iterable
from typing import Any, Final

import msgspec
from msgspec import Struct

from adapters.upstream.answer import END_MARK, Allowance, Quote, decoded, not_an_answer, usage_of
from adapters.upstream.refusal import reported
from adapters.upstream.tool_calls import CalledFunction, ToolCall, ToolCalls
from domain.inference import InferenceResult

_TEXT: Final = "response.output_text.delta"
_ENDS: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})


class Part(Struct, frozen=True):
    """A part of what the model wrote."""

    type: str
    text: str | None = None


class Item(Struct, frozen=True):
    """A message, a call of a function, or reasoning."""

    type: str
    content: list[Part] | None = None
    summary: list[Part] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None


class Incompleteness(Struct, frozen=True):
    """Why the model stopped early."""

    reason: str | None = None


class Whole(Struct, frozen=True):
    """A `response`."""

    output: list[Item] | None = None
    status: str | None = None
    incomplete_details: Incompleteness | None = None
    usage: Any = None
    error: Any = None


class Event(Struct, frozen=True):
    """One event. What `delta` and `response` are depends on its type."""

    type: str = ""
    delta: Any = None
    response: Any = None
    error: Any = None
    message: Any = None


_decode_event = msgspec.json.Decoder(Event).decode
_decode_whole = msgspec.json.Decoder(Whole).decode


class Response:
    """The text, what else the model gave, and the usage. See `Answer`."""

    def __init__(self, max_bytes: int, quote: Quote) -> None:
        self._quote = quote
        self._allowance = Allowance(max_bytes)
        self._text = io.StringIO()
        self._whole: Whole | None = None

    @property
    def is_complete(self) -> bool:
        """See `Answer.is_complete`."""
        return self._whole is not None

    def take(self, event: bytes) -> str:
        """See `Answer.take`."""
        if event == END_MARK:  # some servers send it after the last event of another kind
            return ""
        seen = decoded(_decode_event, event)
        if seen.error is not None or seen.type == "error":
            raise reported(seen.error or {"message": seen.message}, self._quote)
        if seen.type == _TEXT and isinstance(seen.delta, str):
            return self._write(seen.delta)
        if seen.type in _ENDS:
            self._end(_as_whole(seen.response))
        elif not seen.type:
            raise not_an_answer("it has no type")
        return ""

    def take_whole(self, text: bytes) -> str:
        """See `Answer.take_whole`."""
        whole = decoded(_decode_whole, text)
        self._end(whole)
        return self._write("".join(_texts(whole, "message", "output_text")))

    def result(self) -> InferenceResult:
        """See `Answer.result`."""
        whole = self._whole
        if whole is None:
            raise not_an_answer("it has no output")
        reasoning = "".join(_texts(whole, "reasoning", "reasoning_text"))
        details = {
            "finish_reason": _finish_reason(whole),
            "reasoning": reasoning or "".join(_summaries(whole)),
            "tool_calls": self._tool_calls(whole),
        }
        self._allowance.spend(len(str(details["reasoning"]).encode()))
        present = {name: value for name, value in details.items() if value}
        return InferenceResult(self._text.getvalue(), usage_of(whole.usage), present)

    def _end(self, whole: Whole) -> None:
        if whole.error is not None:
            raise reported(whole.error, self._quote)
        if whole.output is None:
            raise not_an_answer("it has no output")
        self._whole = whole

    def _write(self, text: str) -> str:
        self._allowance.spend(len(text.encode()))
        self._text.write(text)
        return text

    def _tool_calls(self, whole: Whole) -> list[dict[str, Any]]:
        calls = ToolCalls(self._allowance)
        for item in whole.output or ():
            if item.type == "function_call":
                function = CalledFunction(item.name, item.arguments)
                calls.take(ToolCall(id=item.call_id, function=function))
        return calls.all()


def _as_whole(response: Any) -> Whole:
    try:
        return msgspec.convert(response, Whole)
    except msgspec.ValidationError as error:
        raise not_an_answer("it has another shape") from error


def _finish_reason(whole: Whole) -> str | None:
    early = whole.incomplete_details
    return early.reason if early is not None and early.reason else whole.status


def _texts(whole: Whole, item_type: str, part_type: str) -> Iterable[str]:
    for item in whole.output or ():
        if item.type == item_type:
            for part in item.content or ():
                if part.type == part_type:
                    yield part.text or ""


def _summaries(whole: Whole) -> Iterable[str]:
    for item in whole.output or ():
        if item.type == "reasoning":
            yield from (part.text or "" for part in item.summary or ())
