"""The child processes of one executor, each replaced when it dies.

A child that dies before its first attempt would only die again: the next one is started after a
pause, which doubles up to half a minute. Meanwhile tasks wait in the store.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Final

import structlog

from adapters.executors.python_callable.frames import Setup
from adapters.executors.python_callable.process import (
    CannotStart,
    ChildProcess,
    NotBegun,
    start_child,
)
from domain.errors import ExecutorUnavailable
from domain.inference import InferenceRequest, Piece

_SHORTEST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 30.0
_STARTING: Final = "they are starting"

log = structlog.get_logger()


class ProcessPool:
    """Runs each attempt in a child that runs no other meanwhile."""

    def __init__(self, setup: Setup, start_timeout_seconds: float) -> None:
        self._setup = setup
        self._start_timeout_seconds = start_timeout_seconds
        self._children: set[ChildProcess] = set()
        self._trouble = _STARTING
        self._offered = asyncio.Event()

    def room(self) -> int:
        """See `Executor.room`."""
        return sum(child.is_free for child in self._children)

    async def check(self) -> None:
        """See `Executor.check`."""
        if not self._children:
            raise ExecutorUnavailable(
                f"no process of {self._setup.target} is ready: {self._trouble}"
            )

    async def run(self, request: InferenceRequest) -> AsyncGenerator[Piece, None]:
        """See `Executor.run`. Waits for a child that is free."""
        while True:
            child = await self._free_child()
            try:
                async with aclosing(child.run(request)) as pieces:
                    async for piece in pieces:
                        yield piece
            except NotBegun:
                continue
            finally:
                self._offered.set()
            return

    async def _free_child(self) -> ChildProcess:
        while True:
            for child in self._children:
                if child.is_free:
                    return child
            self._offered.clear()
            await self._offered.wait()

    async def keep(self, child: ChildProcess | None) -> None:
        """Have one child, this one at first, and start another whenever it died. For ever."""
        pause = 0.0
        while True:
            try:
                await self._live(child or await self._started())
                pause = 0.0
            except (CannotStart, TimeoutError) as error:
                self._trouble = str(error) or "it takes too long"
                pause = min(_LONGEST_PAUSE_SECONDS, max(_SHORTEST_PAUSE_SECONDS, 2 * pause))
                log.warning(
                    "callable_does_not_start",
                    target=self._setup.target,
                    reason=self._trouble,
                    next_try_in_seconds=pause,
                )
                await asyncio.sleep(pause)
            child = None

    async def _started(self) -> ChildProcess:
        async with asyncio.timeout(self._start_timeout_seconds):
            return await start_child(self._setup)

    async def _live(self, child: ChildProcess) -> None:
        """The life of a child that has been started, to its end.

        Raises `CannotStart` and `TimeoutError` where it never took an attempt.
        """
        try:
            async with asyncio.timeout(self._start_timeout_seconds):
                await child.load()
            self._trouble = _STARTING
            self._children.add(child)
            self._offered.set()
            await child.exited()
        finally:
            self._children.discard(child)
            how = await child.end()
        if not child.attempts:
            raise CannotStart(f"its process died while it waited: {how}")


@asynccontextmanager
async def process_pool(
    setup: Setup, first: ChildProcess, *, processes: int, start_timeout_seconds: float
) -> AsyncIterator[ProcessPool]:
    """A pool of so many children, of which the first is there already."""
    pool = ProcessPool(setup, start_timeout_seconds)
    try:
        async with asyncio.TaskGroup() as group:
            children = [first, *[None] * (processes - 1)]
            keepers = [group.create_task(pool.keep(child)) for child in children]
            yield pool
            for keeper in keepers:
                keeper.cancel()
    finally:
        await first.end()  # its keeper may have had no turn
