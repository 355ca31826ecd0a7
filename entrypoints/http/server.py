"""uvicorn, as this service runs it: signals are left to us, it stops in time, and writes once."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

import uvicorn
from litestar.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from entrypoints.http.edge import not_http

_LAST_ANSWERS_SECONDS: Final = 0.3
_CUT_SECONDS: Final = 0.3


class Server(uvicorn.Server):
    """Says when it answers, and can be stopped whatever its connections do."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="none",
                http=JoiningProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
            )
        )
        self.answers = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        self.answers.set()

    async def stop(self, serving: asyncio.Task[None]) -> None:
        """Close idle connections, let the others have their answer, then cut them off."""
        self.should_exit = True
        await asyncio.wait([serving], timeout=_LAST_ANSWERS_SECONDS)
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.wait([serving], timeout=_CUT_SECONDS)
        serving.cancel()


class JoiningProtocol(HttpToolsProtocol):
    """Sends head and body of a short answer together: two system calls fewer, one packet less."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        joining = _JoiningTransport(cast("asyncio.Transport", transport), self.loop)
        super().connection_made(cast("asyncio.Transport", joining))

    def on_message_begin(self) -> None:
        """A request begins; its answer may cut the connection off."""
        super().on_message_begin()
        self.scope["state"]["connection"] = self.transport

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - the words are uvicorn's
        """Refuse what is no HTTP like everything else: with a problem document."""
        self.transport.write(not_http())
        self.transport.close()


class _JoiningTransport:
    """A transport that writes once what one turn of the event loop gives it to write."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.is_closing = transport.is_closing  # asked for after each answer
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Write before the next turn of the loop."""
        if not self._pieces:
            self._loop.call_soon(self._flush)
        self._pieces.append(data)

    def close(self) -> None:
        """Close once everything is written."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._pieces:
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
