"""A child process, as the service sees it: started, given attempts, and stopped."""

import asyncio
import signal
import socket
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, TypeVar

import msgspec

from adapters.executors.python_callable.frames import (
    HEADER_BYTES,
    Attempt,
    End,
    FromChild,
    Imported,
    Joined,
    Loaded,
    Logged,
    NotStorable,
    Progressed,
    Raised,
    Refused,
    Returned,
    Setup,
    Text,
    TooLarge,
    length_of,
    packed,
)
from adapters.executors.python_callable.life import Life
from domain.errors import (
    ExecutorCrashed,
    ExecutorError,
    ExecutorFailed,
    ExecutorUnavailable,
    InvalidInput,
    ResultNotStorable,
    ResultTooLarge,
    UpstreamRejected,
)
from domain.inference import (
    Chunk,
    InferenceRequest,
    InferenceResult,
    LogLine,
    Piece,
    Progress,
    Usage,
)

_GRACE_SECONDS: Final = 0.25
_LAST_WORDS_SECONDS: Final = 0.2
_DEATH_SECONDS: Final = 2.0
_LARGEST_OTHER_FRAME: Final = 64 * 1024
_BYTES_PER_ESCAPED_BYTE: Final = 6  # of output: JSON writes U+0000 as \u0000
_FRAMES_PER_TURN: Final = 64
_PAUSE_SECONDS: Final = 0.002
_RAISED: Final = {
    kind.code: kind
    for kind in (ExecutorUnavailable, ExecutorFailed, UpstreamRejected, InvalidInput)
}

Word = TypeVar("Word", Imported, Loaded)

_decode: Callable[[bytes], FromChild] = msgspec.json.Decoder(FromChild).decode


class CannotStart(Exception):
    """A child ended before it took attempts. `option` is the setting that is to blame, if any."""

    def __init__(self, reason: str, option: str | None = None) -> None:
        super().__init__(reason)
        self.option = option


class NotBegun(Exception):
    """The child was dead, or died, before it knew of the attempt."""


class _Gone(Exception):
    """The child closed its connection, or speaks another language."""


class ChildProcess:
    """One child. It is free while it waits for an attempt."""

    def __init__(
        self, life: Life, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._life = life
        self._reader = reader
        self._writer = writer
        self._is_loaded = False
        self._is_busy = False
        self._is_doomed = False
        self._frames = 0
        self._awaited: int | None = None  # bytes of the frame whose header was read
        self.attempts = 0
        self.is_async = False

    async def set_up(self, setup: Setup) -> None:
        """Tell it what to run, and wait until it has imported that. Raises `CannotStart`."""
        self._writer.write(packed(setup))
        self.is_async = (await self._first(Imported)).is_async

    async def load(self) -> None:
        """Wait until it takes attempts. Raises `CannotStart`."""
        await self._first(Loaded)
        self._is_loaded = True

    @property
    def is_free(self) -> bool:
        """Whether it can take an attempt now."""
        return self._is_loaded and not (
            self._is_busy or self._is_doomed or self._life.exited.done()
        )

    async def run(self, request: InferenceRequest) -> AsyncGenerator[Piece, None]:
        """See `Executor.run`; it must be free. Raises `NotBegun` where it is dead all the same.

        It is free again, or dead, when the result is yielded, or when this is over.
        """
        frame, limit = packed(_attempt_of(request)), _frame_limit(request.max_result_bytes)
        self._is_busy = True
        texts: list[str] = []
        try:
            await self._begin(frame, limit)
            while not isinstance(received := await self._receive(limit), End):
                piece = _piece_of(received)
                if isinstance(piece, Chunk):
                    texts.append(piece.delta)
                yield piece
        except _Gone:
            raise ExecutorCrashed(f"the process that ran it died: {await self.end()}") from None
        finally:
            await self._let_go(limit)
            await asyncio.sleep(0)  # what was printed before has arrived, but is not fed yet
            self._life.prints.report(task_id=request.task_id, attempt=request.attempt)
        yield _result_of(received, texts, request)

    async def exited(self) -> None:
        """Wait for its death, whenever that comes."""
        await asyncio.wait([self._life.exited])

    async def end(self) -> str:
        """Kill it unless it is about to die by itself; once it is gone, tell how it went."""
        await asyncio.wait([self._life.exited], timeout=_LAST_WORDS_SECONDS)
        self.kill()
        await asyncio.wait([self._life.exited], timeout=_DEATH_SECONDS)
        await asyncio.wait([self._life.disconnected], timeout=_LAST_WORDS_SECONDS)
        self._writer.close()
        self._life.close()
        return self._life.how_it_ended()

    def kill(self) -> None:
        """Let it do nothing more."""
        self._is_doomed = True
        if not self._life.exited.done():
            self._life.kill()

    async def _first(self, expected: type[Word]) -> Word:
        """The next message of a child that is starting."""
        try:
            received = await self._receive(_LARGEST_OTHER_FRAME)
        except _Gone:
            raise CannotStart(f"its process died: {await self.end()}") from None
        finally:
            self._life.prints.report()
        if isinstance(received, Refused):
            raise CannotStart(received.reason, received.option)
        if not isinstance(received, expected):
            raise CannotStart("it wrote into the connection to the service")
        return received

    async def _begin(self, frame: bytes, limit: int) -> None:
        try:
            self._writer.write(frame)
            await self._writer.drain()
            await self._receive(limit)
        except (_Gone, OSError) as error:
            await self.end()
            raise NotBegun from error
        self.attempts += 1

    async def _receive(self, limit: int) -> FromChild:
        """The next frame, which is no longer than this. It may be cancelled, and called again."""
        self._frames += 1
        if self._frames % _FRAMES_PER_TURN == 0:
            await asyncio.sleep(_PAUSE_SECONDS)  # who talks without end takes part of a core
        try:
            if self._awaited is None:
                self._awaited = length_of(await self._reader.readexactly(HEADER_BYTES))
            if self._awaited > limit:
                raise _Gone
            frame = _decode(await self._reader.readexactly(self._awaited))
        except (EOFError, OSError, msgspec.MsgspecError, RecursionError) as error:
            raise _Gone from error
        self._awaited = None
        if isinstance(frame, End):
            self._is_busy = False
        return frame

    async def _let_go(self, limit: int) -> None:
        """Make it free or dead: ask, then kill."""
        if not self._is_busy or self._is_doomed:
            return
        self._life.signal(signal.SIGUSR1)
        try:
            async with asyncio.timeout(_GRACE_SECONDS):
                while self._is_busy:
                    await self._receive(limit)
        except (TimeoutError, _Gone):
            self.kill()
            await self.end()
        finally:
            if self._is_busy:
                self.kill()


async def start_child(setup: Setup) -> ChildProcess:
    """A child that has imported its target. Raises `CannotStart`."""
    child = await _spawned()
    try:
        await child.set_up(setup)
    except BaseException:
        await child.end()
        raise
    return child


async def _spawned() -> ChildProcess:
    ours, theirs = socket.socketpair()
    with theirs:
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        try:
            return ChildProcess(await Life.begin(theirs.fileno()), reader, writer)
        except BaseException as error:
            writer.close()
            if isinstance(error, OSError):
                raise CannotStart(f"no process could be started: {error}") from error
            raise


def _attempt_of(request: InferenceRequest) -> Attempt:
    return Attempt(
        task_id=request.task_id,
        attempt=request.attempt,
        model=request.model,
        input=request.input,
        options=dict(request.options),
        max_result_bytes=request.max_result_bytes,
    )


def _frame_limit(max_result_bytes: int) -> int:
    return _BYTES_PER_ESCAPED_BYTE * max_result_bytes + _LARGEST_OTHER_FRAME


def _piece_of(received: FromChild) -> Piece:
    match received:
        case Text(delta):
            return Chunk(delta)
        case Progressed(fraction):
            return Progress(fraction)
        case Logged(message):
            return LogLine(message)
        case _:
            raise _Gone


def _result_of(end: End, texts: list[str], request: InferenceRequest) -> InferenceResult:
    match end:
        case Joined():
            return InferenceResult("".join(texts))
        case Returned(result, usage):
            return _decoded(result, usage)
        case TooLarge():
            raise ResultTooLarge(request.max_result_bytes)
        case NotStorable(reason):
            raise ResultNotStorable(reason)
        case Raised(code, message, retryable, seconds):
            kind: type[ExecutorError] = _RAISED.get(code, ExecutorFailed)
            raise kind(message, retryable=retryable, retry_after_seconds=seconds)


def _decoded(result: msgspec.Raw, usage: Usage | None) -> InferenceResult:
    try:
        details: dict[str, Any] = msgspec.json.decode(result)
    except RecursionError as error:
        raise ResultNotStorable("it is too deep") from error
    return InferenceResult(details.pop("output"), usage, details)
