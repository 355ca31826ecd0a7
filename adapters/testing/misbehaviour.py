"""Every way to misbehave that backends were seen with, for `adapters.testing.upstream`.

Those that are about choices, usage and ends of lines are of the chat completions API alone.
"""

import asyncio
import zlib
from functools import cache
from typing import Final

import msgspec

from adapters.testing.upstream import Behaviour, Exchange, answer_whole

_DRIP_SECONDS: Final = 0.02
_BOMB_MEBIBYTES: Final = 64
_json: Final = msgspec.json.encode

MISBEHAVIOURS: Final[dict[str, Behaviour]] = {}
"""Each by its name, which is what the `model` of a request asks for."""


def status(code: int, message: str = "so it is", **headers: str) -> Behaviour:
    """Answer with this status, and an error in the shape of OpenAI."""

    async def behaviour(exchange: Exchange) -> None:
        await exchange.whole(_json({"error": {"message": message}}), status=code, **headers)

    return behaviour


def _misbehaviour(behaviour: Behaviour) -> Behaviour:
    MISBEHAVIOURS[behaviour.__name__.removeprefix("_")] = behaviour
    return behaviour


async def _send_slowly(exchange: Exchange) -> None:
    while True:
        await exchange.send(b"x")
        await asyncio.sleep(_DRIP_SECONDS)


@cache
def _bomb() -> bytes:
    """Little in gzip format, much when it is unpacked."""
    gzip = zlib.compressobj(level=1, wbits=31)
    packed = b"".join(gzip.compress(bytes(1024 * 1024)) for _ in range(_BOMB_MEBIBYTES))
    return packed + gzip.flush()


@_misbehaviour
async def _ignore_stream(exchange: Exchange) -> None:
    await answer_whole(exchange)


@_misbehaviour
async def _hang_before_the_head(exchange: Exchange) -> None:
    await exchange.hang()


@_misbehaviour
async def _drip_the_head(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nx-drip: ")
    await _send_slowly(exchange)


@_misbehaviour
async def _hang_before_the_pieces(exchange: Exchange) -> None:
    await exchange.stream_head()
    await exchange.hang()


@_misbehaviour
async def _hang_between_pieces(exchange: Exchange) -> None:
    await exchange.stream_head()
    await exchange.piece("one")
    await exchange.hang()


@_misbehaviour
async def _drip(exchange: Exchange) -> None:
    await exchange.stream_head()
    await _send_slowly(exchange)


@_misbehaviour
async def _pieces_for_ever(exchange: Exchange) -> None:
    await exchange.stream_head()
    while True:
        await exchange.piece("again " * 1000)


@_misbehaviour
async def _comments_for_ever(exchange: Exchange) -> None:
    await exchange.stream_head()
    while True:
        await exchange.send(b": still here\n\n" * 1000)


@_misbehaviour
async def _a_line_for_ever(exchange: Exchange) -> None:
    await exchange.stream_head()
    while True:
        await exchange.send(b"x" * 65_536)


@_misbehaviour
async def _a_body_for_ever(exchange: Exchange) -> None:
    await exchange.head(content_type="application/json")
    while True:
        await exchange.send(b" " * 65_536)


@_misbehaviour
async def _a_gigabyte(exchange: Exchange) -> None:
    await exchange.head(content_type=exchange.dialect.content_type, content_length=1024**3)
    for _ in range(1024 * 16):
        await exchange.send(b" " * 65_536)


@_misbehaviour
async def _close_before_the_head(exchange: Exchange) -> None:
    """Read the request, and go away."""


@_misbehaviour
async def _reset_before_the_head(exchange: Exchange) -> None:
    exchange.reset()


@_misbehaviour
async def _reset_in_the_middle(exchange: Exchange) -> None:
    await exchange.stream_head()
    await exchange.piece("one")
    exchange.reset()


@_misbehaviour
async def _no_end_mark(exchange: Exchange) -> None:
    await exchange.stream_head()
    await exchange.piece("one")


@_misbehaviour
async def _an_empty_stream(exchange: Exchange) -> None:
    await exchange.stream_head()


@_misbehaviour
async def _declare_more_than_is_sent(exchange: Exchange) -> None:
    await exchange.head(content_type="application/json", content_length=1000)
    await exchange.send(b'{"choices": [')


@_misbehaviour
async def _a_broken_chunk(exchange: Exchange) -> None:
    await exchange.head(content_type="text/event-stream", transfer_encoding="chunked")
    await exchange.send(b"zz\r\nnot a length\r\n")


@_misbehaviour
async def _not_http(exchange: Exchange) -> None:
    await exchange.send(b"220 mail.example ESMTP\r\n")


@_misbehaviour
async def _html(exchange: Exchange) -> None:
    await exchange.whole(b"<!doctype html><h1>Welcome!</h1>", content_type="text/html")


@_misbehaviour
async def _nothing(exchange: Exchange) -> None:
    await exchange.whole(b"")


@_misbehaviour
async def _other_json(exchange: Exchange) -> None:
    await exchange.whole(b'{"hello": "world"}')


@_misbehaviour
async def _json_of_another_shape(exchange: Exchange) -> None:
    await exchange.whole(b'{"choices": [{"message": "hello"}]}')


@_misbehaviour
async def _no_choices(exchange: Exchange) -> None:
    await exchange.whole(b'{"choices": []}')


@_misbehaviour
async def _only_the_end_mark(exchange: Exchange) -> None:
    await exchange.stream_head()
    await exchange.end()


@_misbehaviour
async def _deep_json(exchange: Exchange) -> None:
    await exchange.whole(b'{"x": ' + b"[" * 100_000)


@_misbehaviour
async def _not_a_number(exchange: Exchange) -> None:
    await exchange.stream_head()
    await exchange.piece_of(b"NaN")
    await exchange.end()


@_misbehaviour
async def _a_lone_surrogate(exchange: Exchange) -> None:
    await exchange.stream_head()
    await exchange.piece_of(rb'"\ud800"')
    await exchange.end()


@_misbehaviour
async def _invalid_utf8(exchange: Exchange) -> None:
    await exchange.stream_head()
    await exchange.piece_of(b'"\xff"')
    await exchange.end()


@_misbehaviour
async def _a_gzip_bomb(exchange: Exchange) -> None:
    bomb = _bomb()
    await exchange.whole(bomb, content_encoding="gzip")


@_misbehaviour
async def _an_error_with_a_gzip_bomb(exchange: Exchange) -> None:
    bomb = _bomb()
    await exchange.whole(bomb, status=400, content_encoding="gzip")


@_misbehaviour
async def _an_error_that_hangs(exchange: Exchange) -> None:
    await exchange.head(503, content_length=1000)
    await exchange.hang()


@_misbehaviour
async def _an_error_in_the_stream(exchange: Exchange) -> None:
    await exchange.stream_head()
    await exchange.piece("one")
    await exchange.fault(message="out of memory", code=None)


@_misbehaviour
async def _a_refusal_in_the_stream(exchange: Exchange) -> None:
    await exchange.stream_head()
    await exchange.piece("one")
    await exchange.fault(message="too many tokens", code=400)


@_misbehaviour
async def _usage_of_another_kind(exchange: Exchange) -> None:
    await exchange.stream_head()
    await exchange.piece("one")
    usage = {"prompt_tokens": 1.5, "completion_tokens": "2", "total_tokens": None}
    await exchange.event(_json({"choices": [], "usage": usage}))
    await exchange.event(b"[DONE]")


@_misbehaviour
async def _no_usage(exchange: Exchange) -> None:
    await exchange.stream_head()
    await exchange.piece("one")
    await exchange.event(b"[DONE]")


@_misbehaviour
async def _a_redirect(exchange: Exchange) -> None:
    await exchange.whole(b"", status=302, location="/elsewhere")


@_misbehaviour
async def _two_choices(exchange: Exchange) -> None:
    await exchange.stream_head()
    await exchange.piece("one")
    await exchange.event(b'{"choices": [{"index": 1, "delta": {"content": "two"}}]}')
    await exchange.event(b"[DONE]")


@_misbehaviour
async def _end_mark_without_a_line_end(exchange: Exchange) -> None:
    await exchange.stream_head()
    await exchange.piece("one")
    await exchange.send(b"data: [DONE]")


@_misbehaviour
async def _lines_ended_by_cr_lf(exchange: Exchange) -> None:
    await exchange.stream_head()
    await exchange.send(b'data: {"choices": [\r\ndata: {"delta": {"content": "one"}}]}\r')
    await exchange.send(b"\n\r\n: a comment\r\nevent: x\r\ndata: [DONE]\r\n\r\n")
