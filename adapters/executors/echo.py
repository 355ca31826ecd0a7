"""The executor for trying things out: it answers with its input, and fails when told to."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Final, Self

import msgspec
from msgspec import Meta, Struct

from domain.errors import ExecutorFailed, InvalidInput, ResultTooLarge
from domain.inference import Chunk, InferenceRequest, InferenceResult, Piece

_A_YEAR: Final = 365 * 86_400
_DELAYED_CHUNK_CHARACTERS: Final = 16
_PIECES_PER_TURN: Final = 256

Delay = Annotated[float, Meta(ge=0, le=_A_YEAR)]


class EchoOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of an `echo` executor: how long an attempt takes if its task does not say."""

    delay_seconds: Delay = 0


class EchoTaskOptions(Struct, frozen=True, kw_only=True):
    """What `echo` understands of a task's options; null counts as left out, the rest is ignored.

    `delay_seconds` is spread over the output. The first `fail_attempts` attempts fail, and may be
    retried. `fail_permanently` fails at once, for good.
    """

    delay_seconds: Delay | None = None
    chunk_characters: Annotated[int, Meta(ge=1)] | None = None
    fail_attempts: Annotated[int, Meta(ge=0)] | None = None
    fail_permanently: bool | None = None


class EchoExecutor:
    """Answers `Processed input: <input>`; an input that is not text is shown as compact JSON."""

    options_type = EchoOptions

    def __init__(self, options: EchoOptions) -> None:
        self._delay_seconds = options.delay_seconds

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def room(self) -> None:
        """See `Executor.room`."""

    async def check(self) -> None:
        """See `Executor.check`."""

    async def run(self, request: InferenceRequest) -> AsyncGenerator[Piece, None]:
        """Yield the output in pieces, then as the result."""
        options = _understood(request)
        _fail_if_asked(options, request.attempt)
        output = f"Processed input: {_shown(request.input)}"
        if len(output.encode()) > request.max_result_bytes:
            raise ResultTooLarge(request.max_result_bytes)
        delay = self._delay_seconds if options.delay_seconds is None else options.delay_seconds
        if delay or options.chunk_characters is not None:
            size = options.chunk_characters or _DELAYED_CHUNK_CHARACTERS
            async with aclosing(_spread(output, size, delay)) as pieces:
                async for piece in pieces:
                    yield piece
        yield InferenceResult(output)


def _understood(request: InferenceRequest) -> EchoTaskOptions:
    try:
        return msgspec.convert(request.options, EchoTaskOptions)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"options: {error}") from error


def _fail_if_asked(options: EchoTaskOptions, attempt: int) -> None:
    if options.fail_permanently:
        raise ExecutorFailed("failed for good, as `fail_permanently` asked", retryable=False)
    if options.fail_attempts and attempt <= options.fail_attempts:
        raise ExecutorFailed(
            f"failed attempt {attempt}, as `fail_attempts: {options.fail_attempts}` asked"
        )


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


async def _spread(output: str, size: int, delay: float) -> AsyncGenerator[Chunk, None]:
    """The pieces of the output, evenly over `delay` seconds.

    Each piece is due at an instant of its own, so that late timers do not add up. Many pieces in a
    row let go of the event loop now and then.
    """
    now = asyncio.get_running_loop().time
    started = now()
    for start in range(0, len(output), size):
        end = min(start + size, len(output))
        wait = started + delay * end / len(output) - now()
        if wait > 0 or start // size % _PIECES_PER_TURN == 0:
            await asyncio.sleep(max(wait, 0))
        yield Chunk(output[start:end])
