"""How the fake upstream says the same in each API that it speaks: as a whole, or in pieces.

An API that does not stream is taken for one whose only piece is followed by an end: sent one after
the other they are its whole answer.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

_json: Final = msgspec.json.encode


class Dialect(Struct, frozen=True):
    """One API.

    `content_type` and `streams` are about an answer in pieces: `streams` None means, if the request
    has `stream`. A `piece` is made of a JSON text; `end` and `whole` are made of the text that the
    answer has in all, `fault` of an error. `usage` None: it is not told.
    """

    content_type: str
    streams: bool | None
    piece: Callable[[bytes], bytes]
    end: Callable[[str, Mapping[str, int] | None], bytes]
    whole: Callable[[str], bytes]
    fault: Callable[[Mapping[str, Any]], bytes]


def usage_of(text: str) -> dict[str, int]:
    """The usage that a good answer of this text reports: a token a word."""
    words = len(text.split())
    return {"prompt_tokens": words, "completion_tokens": words, "total_tokens": 2 * words}


def vector_of(text: str) -> list[float]:
    """The embedding of a text: how long its words are."""
    return [float(len(word)) for word in text.split()]


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


def _event_with_error(error: Mapping[str, Any]) -> bytes:
    return _event(_json({"error": error}))


# --- chat completions and completions --------------------------------------------------------


def _chat_piece(text: bytes) -> bytes:
    delta = b'{"index": 0, "delta": {"content": ' + text + b'}, "finish_reason": null}'
    return _event(b'{"object": "chat.completion.chunk", "choices": [' + delta + b"]}")


def _text_piece(text: bytes) -> bytes:
    return _event(b'{"choices": [{"index": 0, "text": ' + text + b"}]}")


def _choices_end(_: str, usage: Mapping[str, int] | None) -> bytes:
    told = _event(_json({"choices": [], "usage": usage})) if usage else b""
    return told + _event(b"[DONE]")


def _chat_whole(text: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}}
    return _json({"object": "chat.completion", "choices": [choice], "usage": usage_of(text)})


def _text_whole(text: str) -> bytes:
    return _json({"choices": [{"index": 0, "text": text}], "usage": usage_of(text)})


# --- responses -------------------------------------------------------------------------------


def _response_piece(text: bytes) -> bytes:
    return _event(b'{"type": "response.output_text.delta", "delta": ' + text + b"}")


def _response(text: str, usage: Mapping[str, int] | None) -> dict[str, Any]:
    message = {"type": "message", "content": [{"type": "output_text", "text": text}]}
    renamed = (
        {
            "input_tokens": usage["prompt_tokens"],
            "output_tokens": usage["completion_tokens"],
            "total_tokens": usage["total_tokens"],
        }
        if usage
        else None
    )
    return {"object": "response", "status": "completed", "output": [message], "usage": renamed}


def _response_end(text: str, usage: Mapping[str, int] | None) -> bytes:
    return _event(_json({"type": "response.completed", "response": _response(text, usage)}))


def _response_whole(text: str) -> bytes:
    return _json(_response(text, usage_of(text)))


# --- embeddings ------------------------------------------------------------------------------


def _embedding_piece(value: bytes) -> bytes:
    return b'{"data": [{"index": 0, "embedding": ' + value


def _embedding_end(_: str, __: Mapping[str, int] | None) -> bytes:
    return b"}]}"


def _embedding_fault(error: Mapping[str, Any]) -> bytes:
    return b'}], "error": ' + _json(error) + b"}"


def _embedding_whole(text: str) -> bytes:
    data = [{"index": 0, "embedding": vector_of(text)}]
    words = len(text.split())
    return _json({"data": data, "usage": {"prompt_tokens": words, "total_tokens": words}})


# --- APIs of no standard ---------------------------------------------------------------------


def _whole_piece(text: bytes) -> bytes:
    return b'{"output": ' + text


def _whole_end(_: str, __: Mapping[str, int] | None) -> bytes:
    return b"}"


def _whole_fault(error: Mapping[str, Any]) -> bytes:
    return b', "error": ' + _json(error) + b"}"


def _line_piece(text: bytes) -> bytes:
    return b'{"piece": ' + text + b"}\n"


def _line_end(_: str, __: Mapping[str, int] | None) -> bytes:
    return b'{"done": true}\n'


def _event_piece(text: bytes) -> bytes:
    return _event(b'{"piece": ' + text + b"}")


def _event_end(_: str, __: Mapping[str, int] | None) -> bytes:
    return _event(b'{"done": true}')


def _plain_whole(text: str) -> bytes:
    return _json({"output": text})


_STREAM: Final = "text/event-stream"
_JSON: Final = "application/json"

DIALECTS: Final[Mapping[str, Dialect]] = {
    "/v1/chat/completions": Dialect(
        _STREAM, None, _chat_piece, _choices_end, _chat_whole, _event_with_error
    ),
    "/v1/completions": Dialect(
        _STREAM, None, _text_piece, _choices_end, _text_whole, _event_with_error
    ),
    "/v1/responses": Dialect(
        _STREAM, None, _response_piece, _response_end, _response_whole, _event_with_error
    ),
    "/v1/embeddings": Dialect(
        _JSON, False, _embedding_piece, _embedding_end, _embedding_whole, _embedding_fault
    ),
    "/v1/whole": Dialect(_JSON, False, _whole_piece, _whole_end, _plain_whole, _whole_fault),
    "/v1/lines": Dialect(
        "application/x-ndjson",
        True,
        _line_piece,
        _line_end,
        _plain_whole,
        lambda error: _json({"error": error}) + b"\n",
    ),
    "/v1/events": Dialect(_STREAM, True, _event_piece, _event_end, _plain_whole, _event_with_error),
}
"""Each by its path. `/v1/whole`, `/v1/lines` and `/v1/events` are of no standard."""
