"""What is the same for every request, around Litestar: 404 and 405 bypass its middleware.

    uvicorn ─> Edge ─> Litestar ─> controllers

A request gets its id, is refused if its Host or Origin is foreign, is held to a time limit, and
leaves one line in the log, and is counted. Its answer gets the id and the headers that keep
browsers from guessing.
"""

import asyncio
import itertools
import re
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from time import monotonic, perf_counter
from typing import Final, cast
from urllib.parse import unquote

import structlog
from litestar.enums import ScopeType
from litestar.types import (
    ASGIApp,
    HTTPReceiveMessage,
    HTTPScope,
    Message,
    Receive,
    Scope,
    Send,
    WebSocketReceiveMessage,
)

from entrypoints.http.access import Access
from entrypoints.http.errors import (
    BODY_INCOMPLETE,
    FIRST_ERROR_STATUS,
    HOST_NOT_ALLOWED,
    NOT_HTTP,
    ORIGIN_NOT_ALLOWED,
    STORE_UNAVAILABLE,
    Refusal,
    problem,
)
from entrypoints.metrics.requests import NO_ROUTE, Requests
from settings.schema import SecuritySettings

REQUEST_SECONDS: Final = 30.0
LINGER_SECONDS: Final = 2.0
_LOOPBACK: Final = ("localhost", "127.0.0.1", "[::1]")
_ANY_HOST: Final = ("/livez", "/readyz")
_HALF_A_PATH: Final = 512
_SAFE_ID: Final = re.compile(rb"[A-Za-z0-9._~-]{1,128}")
_ON_EVERY_ANSWER: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
)
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::\d{0,5})?")
_PROCESS: Final = secrets.token_hex(8)
_numbers = itertools.count(1)


def not_http() -> bytes:
    """The whole answer to what the parser refused, which never becomes a request."""
    request_id = _request_id(b"")
    headers = [(b"connection", b"close"), *_ON_EVERY_ANSWER, (b"x-request-id", request_id.encode())]
    scope = cast("HTTPScope", {"path": "", "state": {"request_id": request_id}})
    structlog.get_logger().info("request_unreadable", request_id=request_id)
    return problem(NOT_HTTP, scope, headers=headers).on_the_wire()


class Edge:
    """The ASGI application that uvicorn calls."""

    def __init__(self, app: ASGIApp, security: SecuritySettings, requests: Requests) -> None:
        self._app = app
        self._requests = requests
        self._access = Access(security.api_keys, monotonic)
        self._takes_any_host = bool(security.api_keys) and not security.allowed_hosts
        self._hosts = frozenset(name.lower() for name in security.allowed_hosts or _LOOPBACK)
        self._origins = frozenset(origin.lower() for origin in security.allowed_origins)
        self._log = structlog.get_logger().bind()
        self._host_allowed = lru_cache(64)(self._is_known)
        self._under_way = _UnderWay()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (or the lifespan, which is only passed on)."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        self._under_way.add(exchange)
        try:
            await self._serve(exchange)
        finally:
            self._under_way.remove(exchange)
            seconds = perf_counter() - exchange.started
            route = scope.get("path_template", NO_ROUTE)
            self._requests.add(scope["method"], route, exchange.status, seconds)
            self._log.info(
                "request",
                method=scope["method"],
                path=scope["path"][:200],
                status=exchange.status,
                duration_ms=round(seconds * 1000, 2),
                request_id=exchange.request_id,
            )

    async def _serve(self, exchange: "_Exchange") -> None:
        scope = exchange.scope
        refusal = self._refusal(scope, exchange.headers)
        app = self._app if refusal is None else problem(refusal, scope)
        try:
            await app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            if not exchange.expired or exchange.task.uncancel() > 0 or exchange.status:
                raise
            late = BODY_INCOMPLETE if exchange.unread else STORE_UNAVAILABLE
            close = [(b"connection", b"close")]
            await problem(late, scope, headers=close)(scope, exchange.receive, exchange.send)

    def _refusal(self, scope: HTTPScope, headers: Mapping[bytes, bytes]) -> Refusal | None:
        foreign = self._foreign(scope, headers)
        if foreign is not None or _is_preflight(scope, headers):
            return foreign
        caller = self._access.caller(scope["path"], headers)
        if isinstance(caller, Refusal):
            return caller
        scope["state"]["caller"] = caller
        return None

    def _foreign(self, scope: HTTPScope, headers: Mapping[bytes, bytes]) -> Refusal | None:
        host = headers.get(b"host", b"")
        if not self._host_allowed(host[:256]):
            if scope["path"] not in _ANY_HOST:
                return HOST_NOT_ALLOWED
            # Litestar has a look of its own at it, and would refuse some.
            scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"host"]
        origin = headers.get(b"origin")
        if origin is None:
            cross_site = headers.get(b"sec-fetch-site") == b"cross-site"
            return ORIGIN_NOT_ALLOWED if cross_site else None
        own = f"{scope['scheme']}://{host.decode('latin-1')}"
        known = origin.decode("latin-1").lower()
        return None if known == own.lower() or known in self._origins else ORIGIN_NOT_ALLOWED

    def _is_known(self, host: bytes) -> bool:
        match = _HOST.fullmatch(host.decode("latin-1").lower())
        return match is not None and (self._takes_any_host or match[1] in self._hosts)


class _Exchange:
    """One request and its answer, as they pass."""

    __slots__ = (
        *("_receive", "_send", "expired", "headers", "request_id", "scope", "started", "status"),
        *("task", "unread"),
    )

    def __init__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        self.started = perf_counter()
        self.scope = scope
        self.headers = _by_name(scope["headers"])
        self.request_id = _request_id(self.headers.get(b"x-request-id", b""))
        self.status = 0
        self.expired = False
        self.unread = b"content-length" in self.headers or b"transfer-encoding" in self.headers
        self.task = cast("asyncio.Task[None]", asyncio.current_task())
        self._receive = receive
        self._send = send
        scope["path"] = _path(scope)
        # Nothing here may lead back to the exchange: what was left of each request would wait for
        # the collector of cycles, and that costs more than anything else here.
        scope["state"].update(
            request_id=self.request_id, headers=self.headers, may_take=REQUEST_SECONDS
        )

    @property
    def ends(self) -> float:
        """When its time is over; who serves it gives it more where it waits for something."""
        return self.started + float(self.scope["state"]["may_take"])

    def expire(self) -> None:
        """The time for this request is over; said twice, it changes nothing."""
        if not self.expired:
            self.expired = True
            self.task.cancel()

    async def receive(self) -> HTTPReceiveMessage | WebSocketReceiveMessage:
        """The next piece of the body."""
        message = await self._receive()
        self.unread = bool(message.get("more_body", False))
        return message

    async def send(self, message: Message) -> None:
        """The head, with what every answer carries, or a piece of the answer's body."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            request_id = (b"x-request-id", self.request_id.encode())
            message["headers"] = [*message["headers"], *_ON_EVERY_ANSWER, request_id]
        elif (
            self.unread
            and self.status >= FIRST_ERROR_STATUS
            and message["type"] == "http.response.body"
        ):
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def _linger(self) -> None:
        """Let the rest of the body come in, for a while.

        Closed under a client that is still sending, a connection is reset, and the answer with it.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while self.unread:
                    await self.receive()


class _UnderWay:
    """Ends the requests whose time is over, at most a twentieth of `REQUEST_SECONDS` too late.

    One timer for all of them: a timer for each costs more than everything else here.
    """

    def __init__(self) -> None:
        self._exchanges: set[_Exchange] = set()
        self._is_watched = False

    def add(self, exchange: _Exchange) -> None:
        """From now on its time runs."""
        self._exchanges.add(exchange)
        if not self._is_watched:
            self._look_again()

    def remove(self, exchange: _Exchange) -> None:
        """It has its answer."""
        self._exchanges.remove(exchange)

    def _look_again(self) -> None:
        self._is_watched = True
        asyncio.get_running_loop().call_later(REQUEST_SECONDS / 20, self._look)

    def _look(self) -> None:
        now = perf_counter()
        for exchange in self._exchanges:
            if exchange.ends < now:
                exchange.expire()
        self._is_watched = False
        if self._exchanges:
            self._look_again()


def _is_preflight(scope: HTTPScope, headers: Mapping[bytes, bytes]) -> bool:
    """Whether a browser asks what it may send: it never sends a key with that (Fetch standard)."""
    return scope["method"] == "OPTIONS" and b"access-control-request-method" in headers


def _by_name(pairs: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The headers; one that came twice is joined by commas, and then is no good value any more."""
    pairs = list(pairs)
    headers = dict(pairs)
    if len(headers) < len(pairs):
        headers = {}
        for name, value in pairs:
            headers[name] = headers[name] + b", " + value if name in headers else value
    return headers


def _request_id(sent: bytes) -> str:
    """The client's own where it is safe to repeat; else one of ours, unique but no secret."""
    is_safe = sent and _SAFE_ID.fullmatch(sent)
    return sent.decode() if is_safe else f"{_PROCESS}-{next(_numbers)}"


def _path(scope: HTTPScope) -> str:
    """The path, in which an encoded slash stays as it is: it belongs to an id, and routes nothing.

    A long one loses its middle, because Litestar remembers the paths that it has routed.
    """
    path, raw = scope["path"], scope["raw_path"]
    if b"%" in raw:
        path = unquote(raw.decode("ascii").replace("%2F", "%252F").replace("%2f", "%252F"))
    if len(path) <= 2 * _HALF_A_PATH:
        return path
    return path[:_HALF_A_PATH] + path[-_HALF_A_PATH:]
