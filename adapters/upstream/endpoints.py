"""The endpoints of an OpenAI-compatible API: where each is, and how it is asked."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec import Struct

from adapters.upstream.answer import Answer, Quote
from adapters.upstream.choices import Choices
from adapters.upstream.embedding import Embedding
from adapters.upstream.response import Response
from domain.errors import InvalidInput

Fields = Mapping[str, Any]
"""A part of a request's body."""


class Endpoint(Struct, frozen=True):
    """One endpoint.

    `path` follows the base URL. `fields_of` tells what the input of a task sets in the body, and
    raises `InvalidInput`. `streaming` is what else must stand there for a streamed answer, or for
    one that is not. `answer` takes the body, how many bytes the result may have, and how to quote.
    """

    path: str
    fields_of: Callable[[Any], Fields]
    streaming: Callable[[bool], Fields]
    answer: Callable[[Fields, int, Quote], Answer]


def _chat(value: Any) -> Fields:
    match value:
        case str():
            return {"messages": [{"role": "user", "content": value}]}
        case list() if _are_messages(value):
            return {"messages": value}
        case dict() if isinstance(value.get("messages"), list):
            return value
    raise InvalidInput(
        "the input must be a string, a list of chat messages, or an object with `messages`"
    )


def _prompt(value: Any) -> Fields:
    match value:
        case str():
            return {"prompt": value}
        case dict() if "prompt" in value:
            return value
    raise InvalidInput("the input must be a string, or an object with a `prompt`")


def _items(value: Any) -> Fields:
    match value:
        case str():
            return {"input": value}
        case list() if _are_messages(value):
            return {"input": value}
        case dict() if "input" in value:
            return value
    raise InvalidInput(
        "the input must be a string, a list of messages, or an object with an `input`"
    )


def _texts(value: Any) -> Fields:
    match value:
        case str():
            return {"input": value}
        case dict() if isinstance(value.get("input"), str | list):
            return value
    raise InvalidInput(
        "the input must be a string, or an object whose `input` is a string or a list of them"
    )


def _are_messages(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(message, dict) for message in value)


def _with_usage(is_wanted: bool) -> Fields:
    usage = {"stream_options": {"include_usage": True}} if is_wanted else {}
    return {"stream": is_wanted, **usage}


def _choices(_: Fields, max_bytes: int, quote: Quote) -> Answer:
    return Choices(max_bytes, quote)


def _response(_: Fields, max_bytes: int, quote: Quote) -> Answer:
    return Response(max_bytes, quote)


def _embedding(body: Fields, max_bytes: int, quote: Quote) -> Answer:
    return Embedding(max_bytes, quote, is_one=isinstance(body["input"], str))


ENDPOINTS: Final[Mapping[str, Endpoint]] = {
    "chat_completions": Endpoint("/chat/completions", _chat, _with_usage, _choices),
    "completions": Endpoint("/completions", _prompt, _with_usage, _choices),
    "responses": Endpoint("/responses", _items, lambda wanted: {"stream": wanted}, _response),
    "embeddings": Endpoint("/embeddings", _texts, lambda _: {}, _embedding),
}
