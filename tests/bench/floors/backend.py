"""A backend that costs next to nothing: it answers every request with the same short completion.

To a path that ends in `/chat/completions` as a stream of server-sent events, with a pause between
two of them if it begins with `/slowly`; to any other as JSON.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]

_USAGE = b'{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}'
_EVENTS = [
    b"data: " + data + b"\n\n"
    for data in (
        b'{"choices":[{"index":0,"delta":{"role":"assistant","content":"Hel"}}]}',
        b'{"choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":"stop"}]}',
        b'{"choices":[],"usage":' + _USAGE + b"}",
        b"[DONE]",
    )
]
_STREAM = b"".join(_EVENTS)
_PAUSE_SECONDS = 0.05
_JSON = b'{"output":"Hello"}'


def _head(body: bytes, media_type: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", media_type), (b"content-length", b"%d" % len(body))]


async def app(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    if scope["type"] != "http":
        return
    if scope["method"] == "POST":
        await receive()
    is_chat = scope["path"].endswith("/chat/completions")
    if scope["path"].startswith("/slowly"):
        await _answer_slowly(send)
        return
    body = _STREAM if is_chat else _JSON
    head = _head(body, b"text/event-stream" if is_chat else b"application/json")
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


async def _answer_slowly(send: Callable[[Message], Awaitable[None]]) -> None:
    head = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    for event in _EVENTS:
        await send({"type": "http.response.body", "body": event, "more_body": True})
        await asyncio.sleep(_PAUSE_SECONDS)
    await send({"type": "http.response.body", "body": b"", "more_body": False})
