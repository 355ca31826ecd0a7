"""The strict reader that every body passes: media type, size, encoding, depth.

Litestar's own takes `text/plain` for JSON, which lets any web page submit to a local service, and
answers bad UTF-8 and deep nesting with a 500.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import accumulate
from typing import Final

from litestar.types import Receive, Scope

from entrypoints.http.errors import (
    BODY_INCOMPLETE,
    BODY_TOO_LARGE,
    INVALID_ENCODING,
    TOO_DEEP,
    UNSUPPORTED_MEDIA_TYPE,
    Refused,
)

MOST_LEVELS: Final = 64


async def read_json_text(scope: Scope, receive: Receive, max_bytes: int) -> bytes:
    """The body: UTF-8 that nests at most 64 deep. Whether it is JSON is not looked at.

    Raises `Refused`: before anything is read where the head says enough, else as soon as
    `max_bytes` are passed.
    """
    _check_head(scope["state"]["headers"], max_bytes)
    text = await _read(receive, max_bytes)
    try:
        text.decode()
    except UnicodeDecodeError:
        raise Refused(INVALID_ENCODING) from None
    if text.count(b"{") + text.count(b"[") > MOST_LEVELS and _depth(text) > MOST_LEVELS:
        raise Refused(TOO_DEEP)
    return text


async def until_disconnected(receive: Receive) -> None:
    """Return when the client is gone. What else it sends is none of this request."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _check_head(headers: Mapping[bytes, bytes], max_bytes: int) -> None:
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding != b"identity" or not _is_json(headers.get(b"content-type", b"")[:256]):
        raise Refused(UNSUPPORTED_MEDIA_TYPE)
    if int(headers.get(b"content-length", b"0")) > max_bytes:
        raise Refused(BODY_TOO_LARGE)


@lru_cache(64)
def _is_json(media_type: bytes) -> bool:
    name, *parameters = media_type.lower().split(b";")
    pairs = [[part.strip() for part in pair.split(b"=", 1)] for pair in parameters]
    charsets = [pair[1].strip(b'"') for pair in pairs if len(pair) > 1 and pair[0] == b"charset"]
    return name.strip() == b"application/json" and all(
        charset in (b"utf-8", b"utf8") for charset in charsets
    )


async def _read(receive: Receive, max_bytes: int) -> bytes:
    pieces, size = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Refused(BODY_INCOMPLETE)
        pieces.append(message["body"])
        size += len(message["body"])
        if size > max_bytes:
            raise Refused(BODY_TOO_LARGE)
        if not message["more_body"]:
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


# A string that never ends is matched to the end of the text, so that no text takes longer than its
# length says.
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_STEPS: Final = {ord("{"): 1, ord("["): 1, ord("}"): -1, ord("]"): -1}
_NO_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in _STEPS)


def _depth(text: bytes) -> int:
    """How deep the brackets nest that stand outside of strings; the outermost is 1."""
    brackets = _STRING.sub(b"", text).translate(None, _NO_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0)
