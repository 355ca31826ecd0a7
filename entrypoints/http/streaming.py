"""Streams: answers that tell all that happened to a task, and what happens to it, to the end.

    store ─> _Tail ─> _Reader ─> its client
                 └──> _Reader ─> its client

All who read one task, and see it, share a tail, which reads each page of the log and encodes it
once for those who are at the same place. Each reader goes at its own pace, and holds no more than
one page: what it does not take stays in the store. One that takes nothing for a while is cut off,
and may come back. Keeping the log's order and numbers is the store's; nothing is remembered here.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from math import inf
from socket import IPPROTO_TCP, TCP_NOTSENT_LOWAT
from typing import Final

from litestar.types import Message, Receive, Scope, Send
from msgspec import Struct

from domain.errors import StoreError
from domain.service import Caller, Log, LogLost, TaskService
from entrypoints.http.answers import Answer, Header
from entrypoints.http.body import until_disconnected
from entrypoints.http.errors import EVENT_OFFSET_LOST, TASK_NOT_FOUND, problem
from entrypoints.http.frames import COMMENT, frame_of
from entrypoints.http.lookout import Listen, Lookout

COMMENT_SECONDS: Final = 15.0
"""Who hears nothing for so long is sent a comment."""
STALLED_SECONDS: Final = 30.0
"""Who takes nothing for so long is cut off."""
_STALLED_WHEN_RELEASED_SECONDS: Final = 0.5
_LOOK_SECONDS: Final = 0.25
_EVENTS_PER_PAGE: Final = 200
_BYTES_PER_PAGE: Final = 262_144
_BYTES_AT_ONCE: Final = 65_536  # what uvicorn lets stand before it asks the sender to wait
_HEADERS: Final[list[Header]] = [
    (b"content-type", b"text/event-stream"),
    (b"connection", b"close"),
    (b"x-accel-buffering", b"no"),  # else nginx keeps what comes until it is much
]


class _Page(Struct, frozen=True):
    """A part of the log as it is sent: up to event number `last`. `is_over`: nothing follows."""

    frames: bytes
    last: int
    is_over: bool


class Streams:
    """Everybody who reads the events of tasks."""

    def __init__(self, tasks: TaskService, lookout: Lookout) -> None:
        self._tasks = tasks
        self._lookout = lookout
        self._tails: dict[tuple[str, str | None], _Tail] = {}
        self._is_looking = False

    def stream(self, caller: Caller, task_id: str, after: int) -> "Stream":
        """The answer to this caller: the events behind number `after`."""
        return Stream(self, caller, task_id, after)

    @contextmanager
    def tail(self, caller: Caller, task_id: str, reader: "_Reader") -> "Iterator[_Tail]":
        """What this reader reads of the task. It is kept for as long as anybody reads there."""
        key = (task_id, caller.sees)
        if key not in self._tails:
            listen = partial(self._lookout.on_events, task_id)
            self._tails[key] = _Tail(partial(self._page, caller, task_id), listen)
        tail = self._tails[key]
        tail.readers.add(reader)
        self._look_after_readers()
        try:
            yield tail
        finally:
            tail.readers.remove(reader)
            if not tail.readers:
                tail.close()
                del self._tails[key]

    def is_released(self) -> bool:
        """Whether nobody is to wait for more."""
        return self._lookout.is_released

    async def _page(self, caller: Caller, task_id: str, after: int) -> _Page | LogLost | None:
        log = await self._tasks.log(caller, task_id, after, _EVENTS_PER_PAGE)
        return await self._encoded(log, after) if isinstance(log, Log) else log

    async def _encoded(self, log: Log, last: int) -> _Page:
        """As much of it as makes one page."""
        frames: list[bytes] = []
        size = 0
        for event in log.events:
            if size >= _BYTES_PER_PAGE:
                return _Page(b"".join(frames), last, is_over=False)
            frames.append(await frame_of(self._tasks, event))
            size += len(frames[-1])
            last = event.number
        return _Page(b"".join(frames), last, log.is_over)

    def _look_after_readers(self) -> None:
        if not self._is_looking:
            self._is_looking = True
            asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """One timer for all readers: each would cost more with one of its own."""
        now = asyncio.get_running_loop().time()
        for tail in self._tails.values():
            for reader in tail.readers:
                reader.look(now)
        self._is_looking = False
        if self._tails:
            self._look_after_readers()


class Stream:
    """The events of a task as an ASGI application: an answer that goes on."""

    __slots__ = ("_after", "_caller", "_streams", "_task_id")

    def __init__(self, streams: Streams, caller: Caller, task_id: str, after: int) -> None:
        self._streams = streams
        self._caller = caller
        self._task_id = task_id
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, until the log ends, the client is gone, or everybody is released."""
        connection = scope["state"]["connection"]
        _keep_little_unsent(connection)
        reader = _Reader(connection, send, self._streams.is_released)
        with self._streams.tail(self._caller, self._task_id, reader) as tail:
            page = await tail.page(self._after)
            if page is None:
                await problem(TASK_NOT_FOUND, scope)(scope, receive, send)
            elif isinstance(page, LogLost):
                await _lost(page, scope)(scope, receive, send)
            else:
                scope["state"]["may_take"] = inf
                await reader.follow(tail, page, receive)


def _keep_little_unsent(connection: asyncio.Transport) -> None:
    """Else the system holds megabytes for each client that does not take them."""
    connection.get_extra_info("socket").setsockopt(IPPROTO_TCP, TCP_NOTSENT_LOWAT, _BYTES_AT_ONCE)


def _lost(lost: LogLost, scope: Scope) -> Answer:
    detail = f"Events up to number {lost.until} are forgotten; the log is there after that."
    return problem(EVENT_OFFSET_LOST, scope, detail=detail)


class _Tail:
    """The log of one task, as its readers want it: each page is read once for all who are there."""

    def __init__(
        self, read: Callable[[int], Awaitable[_Page | LogLost | None]], listen: Listen
    ) -> None:
        self.readers: set[_Reader] = set()
        self._read = read
        self._listen = listen
        self._stop_listening: Callable[[], None] | None = None
        self._reads: dict[int, asyncio.Future[_Page | LogLost | None]] = {}

    async def page(self, after: int) -> _Page | LogLost | None:
        """What follows this number. An empty page is that of the last wake, or later.

        None, and errors, as in `TaskService.log`.
        """
        if after not in self._reads:
            reading = asyncio.ensure_future(self._look(after))
            self._reads[after] = reading
            reading.add_done_callback(partial(self._forget, after))
        return await asyncio.shield(self._reads[after])

    def wake(self) -> None:
        """More may follow."""
        self._reads.clear()
        for reader in self.readers:
            reader.wake()

    def close(self) -> None:
        """Nobody reads any more."""
        for reading in self._reads.values():
            reading.cancel()
        if self._stop_listening is not None:
            self._stop_listening()

    async def _look(self, after: int) -> _Page | LogLost | None:
        page = await self._read(after)
        if self._stop_listening is None and _is_the_latest(page):
            self._stop_listening = self._listen(self.wake)
            page = await self._read(after)  # what came before anybody listened
        return page

    def _forget(self, after: int, reading: "asyncio.Future[_Page | LogLost | None]") -> None:
        """Keep nothing but that there is nothing yet."""
        if self._reads.get(after) is not reading:
            return
        if reading.cancelled() or reading.exception() or not _is_the_latest(reading.result()):
            del self._reads[after]


def _is_the_latest(page: _Page | LogLost | None) -> bool:
    return isinstance(page, _Page) and not page.frames and not page.is_over


class _Reader:
    """One client, at its own pace."""

    __slots__ = ("_connection", "_is_released", "_is_sending", "_moved_at", "_send", "_woken")

    def __init__(
        self, connection: asyncio.Transport, send: Send, is_released: Callable[[], bool]
    ) -> None:
        self._connection = connection
        self._send = send
        self._is_released = is_released
        self._is_sending = False
        self._moved_at = inf
        self._woken = _new_future()

    async def follow(self, tail: _Tail, page: _Page, receive: Receive) -> None:
        """Send this page and all that follow it."""
        gone = asyncio.ensure_future(until_disconnected(receive))
        gone.add_done_callback(lambda _: self.wake())
        try:
            await self._put({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await self._put_all(tail, page)
            await self._put({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()

    def wake(self, comment: bytes = b"") -> None:
        """There may be more to send; if not, at least this."""
        if not self._woken.done():
            self._woken.set_result(comment)

    def look(self, now: float) -> None:
        """Keep the client, or let it go, as the time has come."""
        seconds = now - self._moved_at
        if not self._is_sending:
            if seconds >= COMMENT_SECONDS:
                self.wake(COMMENT)
        elif seconds >= (
            _STALLED_WHEN_RELEASED_SECONDS if self._is_released() else STALLED_SECONDS
        ):
            self._connection.abort()

    async def _put_all(self, tail: _Tail, page: _Page | LogLost | None) -> None:
        while isinstance(page, _Page):
            await self._put_frames(page.frames)
            if not (page.frames or page.is_over or self._is_to_end()):
                await self._rest()
            if page.is_over or self._is_to_end():
                return
            self._woken = _new_future()
            try:
                page = await tail.page(page.last)
            except StoreError:
                return  # the client comes back, and is told then

    async def _rest(self) -> None:
        """Return when there may be more."""
        while (comment := await self._woken) and not self._is_to_end():
            self._woken = _new_future()
            await self._put_frames(comment)

    def _is_to_end(self) -> bool:
        return self._is_released() or self._connection.is_closing()

    async def _put_frames(self, frames: bytes) -> None:
        for start in range(0, len(frames), _BYTES_AT_ONCE):
            piece = frames[start : start + _BYTES_AT_ONCE]
            await self._put({"type": "http.response.body", "body": piece, "more_body": True})

    async def _put(self, message: Message) -> None:
        self._moved_at, self._is_sending = asyncio.get_running_loop().time(), True
        await self._send(message)
        await asyncio.sleep(0)  # until then the connection does not know that it is full
        self._is_sending = False


def _new_future() -> "asyncio.Future[bytes]":
    return asyncio.get_running_loop().create_future()
