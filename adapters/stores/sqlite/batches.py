"""A thread that takes all the calls that wait, at once, and answers them in one hop.

There is no window: while one batch is worked on, the next gathers by itself, the larger the busier
it is. A caller that goes away does not stop its call.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Final, TypeVar

from domain.errors import StoreUnavailable

_PATIENCE_SECONDS: Final = 10.0
_MOST_WAITING: Final = 10_000
_LARGEST_BATCH: Final = 256

T = TypeVar("T")


class Call:
    """An operation that waits for its turn, and what came of it: an answer, or an error."""

    __slots__ = ("answer", "durable", "error", "future", "operation")

    def __init__(
        self, operation: Callable[[], Any], durable: bool, future: "asyncio.Future[Any]"
    ) -> None:
        self.operation = operation
        self.durable = durable
        self.future = future
        self.answer: Any = None
        self.error: Exception | None = None

    def fail(self, error: Exception) -> None:
        """Let this be what comes of it; the database's own errors become `StoreUnavailable`."""
        self.error = StoreUnavailable(str(error)) if isinstance(error, sqlite3.Error) else error

    def wake_caller(self) -> None:
        """Give the caller what came of it, if it still waits."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.answer)


class BatchThread:
    """Runs `work` on one batch after another. Made, called and closed on one event loop.

    `work` gives each call its answer or its error, and raises nothing.
    """

    def __init__(self, name: str, work: Callable[[list[Call]], None]) -> None:
        self._work = work
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._waiting: SimpleQueue[Call | None] = SimpleQueue()
        self._unanswered: dict[asyncio.Future[Any], float] = {}  # since when; the oldest first
        self._is_watched = False
        # A daemon: a disk that hangs must not keep the process from exiting.
        Thread(target=self._run, name=name, daemon=True).start()

    async def call(self, operation: Callable[[], T], *, durable: bool = True) -> T:
        """Run the operation in the thread, and give back what it returns, or raise what it raises.

        `durable` False: its commit may be lost in a power cut, though not by a killed process.
        Raises `StoreUnavailable` when the thread is too far behind, or silent for ten seconds and
        at most one more.
        """
        if self._waiting.qsize() >= _MOST_WAITING:
            raise StoreUnavailable(f"{_MOST_WAITING} calls wait for it already")
        future: asyncio.Future[T] = self._loop.create_future()
        self._unanswered[future] = self._loop.time()
        self._waiting.put(Call(operation, durable, future))
        if not self._is_watched:
            self._watch()
        try:
            return await future
        finally:
            del self._unanswered[future]

    async def close(self) -> None:
        """Finish what waits, then end the thread."""
        self._waiting.put(None)
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await self._ended

    def _watch(self) -> None:
        """One timer for all calls: one for each would cost more than the hop."""
        self._is_watched = True
        self._loop.call_later(_PATIENCE_SECONDS / 10, self._give_up_on_old)

    def _give_up_on_old(self) -> None:
        limit = self._loop.time() - _PATIENCE_SECONDS
        for future, since in self._unanswered.items():
            if since > limit:
                break
            if not future.done():
                reason = f"no answer for {_PATIENCE_SECONDS:g} seconds"
                future.set_exception(StoreUnavailable(reason))
        self._is_watched = False
        if self._unanswered:
            self._watch()

    def _run(self) -> None:
        closing = False
        with suppress(RuntimeError):  # the loop was closed without us: nobody waits any more
            while not closing:
                batch = self._take()
                closing = batch[-1] is None
                calls = [call for call in batch if call is not None]
                self._work(calls)
                self._loop.call_soon_threadsafe(_wake_callers, calls)
            self._loop.call_soon_threadsafe(self._ended.set_result, None)

    def _take(self) -> list[Call | None]:
        """All that waits, at least one; None, always the last, ends the thread."""
        batch = [self._waiting.get()]
        with suppress(Empty):
            while batch[-1] is not None and len(batch) < _LARGEST_BATCH:
                batch.append(self._waiting.get_nowait())
        return batch


def _wake_callers(calls: list[Call]) -> None:
    for call in calls:
        call.wake_caller()
