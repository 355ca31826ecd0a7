"""One request to one of several backends: sent, refused or answered, and judged.

An attempt that finds no connection asks the next backend, for nothing was sent; when none was left
it tries once more, a moment later. With that, attempts which run side by side see enough of a
backend that is down to open its breaker before one of them has failed. After a request was sent,
whatever goes wrong is the attempt's failure.

Whatever happens, the connection is closed when the attempt is over: that is what stops the work of
the model. No connection is used twice: an idle one that dies just then would cost a task its
attempt.
"""

import asyncio
import io
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final, Self
from urllib.parse import urlsplit

import aiohttp
from msgspec import Struct

from adapters.upstream.backends import Backends, Target, Turn
from adapters.upstream.body import BodyLimits, BoundedBody, error_body
from adapters.upstream.options import UpstreamOptions, trusting
from adapters.upstream.refusal import HTTP_ERRORS, quoted, refusal, retry_after, said
from domain.errors import (
    ExecutorError,
    ExecutorFailed,
    ExecutorUnavailable,
    ExecutorUnreachable,
)

_MIB: Final = 1024 * 1024
_STREAMED_BYTES_PER_RESULT_BYTE: Final = 128
_READ_BYTES: Final = 64 * 1024
_REQUEST_FAULTS: Final = range(400, 500)
_SECOND_TRY_AFTER_SECONDS: Final = 0.25
_PROBE_SECONDS: Final = 5.0
_SERVER_FAULTS: Final = range(500, 600)
_UNAUTHORIZED: Final = frozenset({401, 403})
_CONNECTED: Final = 200  # of a probe that only connects


class Reply(Struct, frozen=True):
    """An answer that is no refusal. No event, line or whole may be above `max_part_bytes`."""

    content_type: str
    body: BoundedBody
    max_part_bytes: int


class UpstreamClient:
    """Asks the backends of one executor."""

    def __init__(
        self, targets: Collection[Target], options: UpstreamOptions, api_key: str | None = None
    ) -> None:
        """Neither the key nor what stands in a header is ever shown."""
        self._targets = targets
        self._options = options
        self._backends = Backends(targets, self._is_alive)
        self._secrets = [text for text in (api_key, *options.headers.values()) if text]
        # Encoded answers are never asked for, nor decoded: a small one may unpack to anything.
        self._headers = {name.lower(): value for name, value in options.headers.items()}
        self._headers |= {"content-type": "application/json", "accept-encoding": "identity"}
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        trusted = True if self._options.ca_file is None else trusting(self._options.ca_file)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True, ssl=trusted),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(
                total=None, connect=self._options.connect_timeout_seconds
            ),
            auto_decompress=False,
            read_bufsize=_READ_BYTES,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._backends.stop_probing()
        await self._session.close()

    def room(self) -> int | None:
        """See `Executor.room`."""
        return self._backends.room()

    async def check(self) -> None:
        """See `Executor.check`: one backend that is well is enough."""
        faults = await asyncio.gather(*(self._fault_of(target) for target in self._targets))
        if all(faults):
            raise ExecutorUnavailable("; ".join(fault for fault in faults if fault))

    @asynccontextmanager
    async def exchange(
        self, body: bytes, max_result_bytes: int, method: str = "POST"
    ) -> AsyncIterator[Reply]:
        """Send a request, and give the answer, which is to be read within.

        Raises the errors that the table of `refusal` has for what is no answer.
        """
        turn, response = await self._reach(method, body)
        is_well: bool | None = None
        try:
            await self._refuse_failure(response)
            yield self._reply(response, max_result_bytes)
            is_well = True
        except ExecutorError as error:
            # A fault of the request, and 429, speak of a backend that answers.
            is_well = not error.retryable or response.status in _REQUEST_FAULTS
            raise
        finally:
            response.close()
            self._backends.end(turn, is_well)

    def quoted(self, text: str) -> str:
        """Text of a backend, fit for an error message."""
        return quoted(text, self._secrets)

    # --- sending -----------------------------------------------------------------------------

    async def _reach(self, method: str, body: bytes) -> tuple[Turn, aiohttp.ClientResponse]:
        try:
            return await self._reach_one(method, body)
        except ExecutorUnreachable:
            await asyncio.sleep(_SECOND_TRY_AFTER_SECONDS)
            return await self._reach_one(method, body)

    async def _reach_one(self, method: str, body: bytes) -> tuple[Turn, aiohttp.ClientResponse]:
        tried: set[Target] = set()
        unreachable = ExecutorUnreachable("no backend is known to be up")
        while turn := self._backends.begin(tried):
            tried.add(turn.target)
            try:
                return turn, await self._send(turn.target.url, method, body)
            except ExecutorUnreachable as error:
                self._backends.end(turn, is_well=False)
                unreachable = error
            except ExecutorError:
                self._backends.end(turn, is_well=False)
                raise
            except BaseException:  # cancelled
                self._backends.end(turn, is_well=None)
                raise
        raise unreachable

    async def _send(self, url: str, method: str, body: bytes) -> aiohttp.ClientResponse:
        limit = self._options.first_byte_timeout_seconds
        try:
            async with asyncio.timeout(limit):
                return await self._session.request(
                    method, url, data=io.BytesIO(body) if body else None, allow_redirects=False
                )
        except aiohttp.ConnectionTimeoutError as error:
            raise ExecutorUnreachable("no connection to the backend in time") from error
        except TimeoutError as error:
            raise ExecutorUnavailable(f"no answer within {limit:g} seconds") from error
        except aiohttp.ClientConnectorError as error:
            reason = type(error.__cause__ or error).__name__
            raise ExecutorUnreachable(f"no connection to the backend: {reason}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ExecutorUnavailable("the backend closed the connection unanswered") from error

    # --- the answer --------------------------------------------------------------------------

    async def _refuse_failure(self, response: aiohttp.ClientResponse) -> None:
        encoding = response.headers.get("Content-Encoding", "identity")
        if response.status in HTTP_ERRORS:
            wait = retry_after(response.headers.get("Retry-After"), datetime.now(UTC))
            quote = await self._reason(response) if encoding == "identity" else ""
            raise refusal(response.status, quote, retry_after_seconds=wait)
        if encoding != "identity":
            raise ExecutorFailed(
                f"the backend's answer cannot be read: it is encoded as {self.quoted(encoding)}",
                retryable=False,
            )

    async def _reason(self, response: aiohttp.ClientResponse) -> str:
        body = await error_body(response, self._options.silence_timeout_seconds)
        return self.quoted(said(body))

    def _reply(self, response: aiohttp.ClientResponse, max_result_bytes: int) -> Reply:
        allowed = _STREAMED_BYTES_PER_RESULT_BYTE * max_result_bytes + _MIB
        limits = BodyLimits(
            silence_seconds=self._options.silence_timeout_seconds,
            total_seconds=self._options.total_timeout_seconds,
            max_bytes=self._options.max_response_bytes or allowed,
        )
        return Reply(
            response.content_type, BoundedBody(response, limits), 2 * max_result_bytes + _MIB
        )

    # --- probes ------------------------------------------------------------------------------

    async def _is_alive(self, target: Target) -> bool:
        try:
            return await self._probe(target) < _SERVER_FAULTS.start
        except ExecutorUnavailable:
            return False

    async def _fault_of(self, target: Target) -> str | None:
        """Why this backend would take no attempt now, in words; None: it would."""
        host = urlsplit(target.url).netloc
        try:
            status = await self._probe(target)
        except ExecutorUnavailable as error:
            return f"{host}: {error.message}"
        if status in _SERVER_FAULTS or status in _UNAUTHORIZED:
            return f"{host}: the backend answered {status} to a probe"
        return None

    async def _probe(self, target: Target) -> int:
        """The status of a short question. Raises `ExecutorUnavailable` where there is none."""
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                if target.probe_url is None:
                    return await _connected(target.url)
                return await self._asked(target.probe_url)
        except TimeoutError as error:
            raise ExecutorUnavailable(f"no answer within {_PROBE_SECONDS:g} seconds") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:  # the last: of odd host names
            reason = type(error.__cause__ or error).__name__
            raise ExecutorUnavailable(f"no answer: {reason}") from error

    async def _asked(self, url: str) -> int:
        async with self._session.get(url, allow_redirects=False) as response:
            return response.status


async def _connected(url: str) -> int:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    _, writer = await asyncio.open_connection(parts.hostname, port)
    writer.transport.abort()
    return _CONNECTED
