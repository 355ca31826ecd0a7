"""An answer, encoded already: what every route and every error gives back."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

from litestar.types import Receive, Scope, Send

Header = tuple[bytes, bytes]
_WITHOUT_BODY: Final = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})


class Answer:
    """A whole answer as an ASGI application, which Litestar sends as it is.

    Half the cost of Litestar's `Response`, which encodes, merges headers and cookies, and copies.
    """

    __slots__ = ("_body", "_headers", "_status")

    def __init__(
        self,
        status: int,
        body: bytes,
        headers: Sequence[Header] = (),
        media_type: bytes = b"application/json",
    ) -> None:
        self._status = status
        self._body = body
        self._headers = [*headers]
        if status not in _WITHOUT_BODY:
            length = b"%d" % len(body)
            self._headers += [(b"content-type", media_type), (b"content-length", length)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Send it."""
        await send(
            {"type": "http.response.start", "status": self._status, "headers": self._headers}
        )
        await send({"type": "http.response.body", "body": self._body, "more_body": False})

    def on_the_wire(self) -> bytes:
        """All of it as HTTP/1.1 carries it, for a connection on which no request could be read."""
        status = HTTPStatus(self._status)
        head = [b"HTTP/1.1 %d %s" % (status, status.phrase.encode())]
        head += [b"%s: %s" % header for header in self._headers]
        return b"\r\n".join([*head, b"", self._body])

    def to_asgi_response(self, **_: Any) -> "Answer":
        """What Litestar asks the value of an exception handler for."""
        return self
