"""Reading an upstream's answer within limits on silence, time and size."""

import asyncio
import sys
from contextlib import suppress
from typing import Final

import aiohttp
from msgspec import Struct

from domain.errors import ExecutorFailed, ResultTooLarge

_ERROR_BYTES: Final = 16 * 1024
_ERROR_SECONDS: Final = 5.0


class BodyLimits(Struct, frozen=True):
    """How long between two pieces, how long in all, and how many bytes."""

    silence_seconds: float
    total_seconds: float
    max_bytes: int


class BoundedBody:
    """The body of one answer, to be read once.

    A body that stops before its end is a failure that may be retried. The time that the reader
    spends between two reads counts as well.
    """

    def __init__(self, response: aiohttp.ClientResponse, limits: BodyLimits) -> None:
        self._content = response.content
        self._limits = limits
        self._ends_at = asyncio.get_running_loop().time() + limits.total_seconds
        self._bytes_left = limits.max_bytes

    async def read(self) -> bytes:
        """The next piece; empty at the end.

        Raises `ExecutorFailed` when the connection breaks or is too slow, `ResultTooLarge` when
        there is more than the limit.
        """
        piece = await self._next_piece()
        self._bytes_left -= len(piece)
        if self._bytes_left < 0:
            raise ResultTooLarge(self._limits.max_bytes)
        return piece

    async def read_all(self, max_bytes: int) -> bytes:
        """The whole body; raises as `read` does, and `ResultTooLarge` beyond `max_bytes`."""
        body = bytearray()
        while piece := await self.read():
            body += piece
            if len(body) > max_bytes:
                raise ResultTooLarge(max_bytes)
        return bytes(body)

    async def _next_piece(self) -> bytes:
        left = self._ends_at - asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(min(left, self._limits.silence_seconds)):
                return await self._content.readany()
        except TimeoutError as error:
            raise ExecutorFailed(self._too_slow(left)) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ExecutorFailed("the backend's answer broke off") from error

    def _too_slow(self, left: float) -> str:
        if left < self._limits.silence_seconds:
            return f"the backend did not finish within {self._limits.total_seconds:g} seconds"
        return f"the backend was silent for {self._limits.silence_seconds:g} seconds"


async def error_body(response: aiohttp.ClientResponse, silence_seconds: float) -> bytes:
    """The start of an error's body, as far as it comes in time: its status is known already."""
    body = BoundedBody(response, BodyLimits(silence_seconds, _ERROR_SECONDS, sys.maxsize))
    received = bytearray()
    with suppress(ExecutorFailed):
        while len(received) < _ERROR_BYTES and (piece := await body.read()):
            received += piece
    return bytes(received)
