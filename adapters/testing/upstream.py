"""A fake backend on a real socket, which misbehaves when asked to. It speaks all of `DIALECTS`.

The `model` of a request, or of its `options`, names the behaviour; any other model answers as it
should: with the text of the last message, a word at a time, and the usage. So one fake serves good
and bad requests side by side. The behaviours of requests without a body, which is what probes are,
go by the path.

    async with FakeUpstream(MISBEHAVIOURS) as upstream:
        ...  # talk to upstream.base_url
        await upstream.until_let_go()

A behaviour goes on until it is over or the client closes the connection.
"""

import asyncio
import ssl
import struct
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, Final, Self, cast

import msgspec
from msgspec import Struct

from adapters.testing.dialects import DIALECTS, usage_of

_FOR_EVER: Final = 3600
_json: Final = msgspec.json.encode


class ReceivedRequest(Struct, frozen=True):
    """What a client sent: header names in lower case, repeated ones joined; the body as JSON."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]


class Exchange:
    """One request, and the means to answer it well or badly."""

    def __init__(self, request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        self.request = request
        self.dialect = DIALECTS.get(request.path, DIALECTS["/v1/chat/completions"])
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send bytes as they are; waits while the client does not read."""
        self._writer.write(data)
        await self._writer.drain()

    async def head(self, status: int = 200, **headers: str | int) -> None:
        """Send the head of an answer. `content_type=…` becomes `content-type: …`."""
        lines = [f"HTTP/1.1 {status} Whatever", "connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.send("\r\n".join([*lines, "", ""]).encode())

    async def whole(self, body: bytes, status: int = 200, **headers: str | int) -> None:
        """Send a whole answer, whose length is declared; JSON unless told otherwise."""
        await self.head(
            status, **{"content_type": "application/json", "content_length": len(body), **headers}
        )
        await self.send(body)

    async def stream_head(self) -> None:
        """Begin an answer in pieces that ends when the connection is closed."""
        await self.head(content_type=self.dialect.content_type)

    async def event(self, data: bytes) -> None:
        """Send one server-sent event."""
        await self.send(b"data: " + data + b"\n\n")

    async def piece(self, text: str) -> None:
        """Send one piece of text."""
        await self.piece_of(_json(text))

    async def piece_of(self, value: bytes) -> None:
        """Send one piece, with this JSON text where its text should be."""
        await self.send(self.dialect.piece(value))

    async def end(self, text: str = "", usage: Mapping[str, int] | None = None) -> None:
        """End an answer in pieces, which had this text in all."""
        await self.send(self.dialect.end(text, usage))

    async def fault(self, **error: Any) -> None:
        """Report an error in the middle of an answer in pieces."""
        await self.send(self.dialect.fault(error))

    async def hang(self) -> None:
        """Do nothing until the client goes away."""
        await asyncio.sleep(_FOR_EVER)

    def reset(self) -> None:
        """Break the connection off with a TCP reset."""
        socket = self._writer.get_extra_info("socket")
        socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


Behaviour = Callable[[Exchange], Coroutine[Any, Any, None]]


def reply_to(body: Mapping[str, Any]) -> str:
    """The text that a good answer to this request has: that of its last message."""
    asked = body.get("messages") or body.get("prompt") or body["input"]
    return str(asked[-1]["content"] if isinstance(asked, list) else asked)


async def answer(exchange: Exchange) -> None:
    """Answer as one should, in pieces if that was asked for."""
    streams = exchange.dialect.streams
    if not (exchange.request.body.get("stream") if streams is None else streams):
        await answer_whole(exchange)
        return
    text = reply_to(exchange.request.body)
    await exchange.stream_head()
    for number, word in enumerate(text.split(" ")):
        await exchange.piece(f" {word}" if number else word)
    await exchange.end(text, usage_of(text))


async def answer_whole(exchange: Exchange) -> None:
    """Ignore `stream`, and answer in one piece."""
    await exchange.whole(exchange.dialect.whole(reply_to(exchange.request.body)))


async def answer_probe(exchange: Exchange) -> None:
    """List no models."""
    await exchange.whole(b'{"object": "list", "data": []}')


class FakeUpstream:
    """Listens on the loopback address while it is entered, on a free port unless told which.

    `requests` are those with a body, in order; `probes` those without.
    """

    def __init__(
        self,
        behaviours: Mapping[str, Behaviour] | None = None,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._behaviours = behaviours or {}
        self._port = port
        self._tls = tls
        self._server: asyncio.Server
        self._open: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()
        self.requests: list[ReceivedRequest] = []
        self.probes: list[ReceivedRequest] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self._port, ssl=self._tls
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for serving in self._open:
            serving.cancel()
        await self.until_let_go()

    @property
    def base_url(self) -> str:
        """What stands before `/chat/completions` and the like."""
        port = self._server.sockets[0].getsockname()[1]
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{port}/v1"

    async def until_let_go(self, within_seconds: float = 1.0) -> None:
        """Wait until no connection is open any more. Raises `TimeoutError`."""
        async with asyncio.timeout(within_seconds), self._changed:
            await self._changed.wait_for(lambda: not self._open)

    async def until_asked(self, requests: int, within_seconds: float = 5.0) -> None:
        """Wait until so many requests have come in. Raises `TimeoutError`."""
        async with asyncio.timeout(within_seconds), self._changed:
            await self._changed.wait_for(lambda: len(self.requests) >= requests)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving = cast("asyncio.Task[None]", asyncio.current_task())
        self._open.add(serving)
        try:
            with suppress(asyncio.CancelledError, ConnectionError, asyncio.IncompleteReadError):
                await self._behave(reader, writer)
        finally:
            writer.close()
            self._open.remove(serving)
            await self._notify()

    async def _behave(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await _received(reader)
        (self.requests if request.body else self.probes).append(request)
        await self._notify()
        behaviour = self._behaviour_for(request)
        acting = asyncio.create_task(behaviour(Exchange(request, writer)))
        client_gone = asyncio.create_task(reader.read())
        try:
            await asyncio.wait({acting, client_gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            acting.cancel()
            client_gone.cancel()
            await asyncio.gather(acting, client_gone, return_exceptions=True)

    def _behaviour_for(self, request: ReceivedRequest) -> Behaviour:
        if not request.body:
            return self._behaviours.get(request.path, answer_probe)
        model = request.body.get("model") or request.body.get("options", {}).get("model")
        return self._behaviours.get(str(model), answer)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


async def _received(reader: asyncio.StreamReader) -> ReceivedRequest:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.rstrip().split("\r\n")
    headers: dict[str, str] = {}
    for name, _, value in (line.partition(":") for line in lines):
        before = headers.get(name.lower())
        headers[name.lower()] = f"{before}, {value.strip()}" if before else value.strip()
    method, path, _ = first.split()
    length = int(headers.get("content-length", 0))
    body = msgspec.json.decode(await reader.readexactly(length)) if length else {}
    return ReceivedRequest(method, path, headers, body)
