"""Long polls: requests that are answered when a task has ended, or their time is over.

All who wait for one task, and see it, share a watch: it reads the task for them once when it may
have ended.
"""

import asyncio
from asyncio import FIRST_COMPLETED
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from math import inf
from typing import Final

from domain.errors import StoreError
from domain.service import Caller, TaskService
from entrypoints.http.lookout import Listen, Lookout
from entrypoints.http.schemas import TaskView
from entrypoints.http.views import read_view

_MOMENT_SECONDS: Final = 0.05


class Waiting:
    """Everybody who waits for the end of a task."""

    def __init__(self, tasks: TaskService, lookout: Lookout) -> None:
        self._read = partial(read_view, tasks)
        self._lookout = lookout
        self._watches: dict[tuple[str, str | None], _Watch] = {}

    async def until_ended(
        self, caller: Caller, task_id: str, seconds: float, gone: asyncio.Future[None]
    ) -> TaskView | None:
        """The task once it has ended, or as it is after this time; None as in `TaskService.get`.

        Returns early when the client is `gone`, or everybody is released.
        """
        end = asyncio.get_running_loop().time() + seconds
        with self._watch(caller, task_id) as watch:
            woken, task = watch.woken, await watch.look()
            while task is not None and not (task.done or gone.done() or self._lookout.is_released):
                left = end - asyncio.get_running_loop().time()
                if left <= 0:
                    break
                await asyncio.wait({woken, gone}, timeout=left, return_when=FIRST_COMPLETED)
                woken, task = watch.woken, await watch.look(_MOMENT_SECONDS)
            return task

    @contextmanager
    def _watch(self, caller: Caller, task_id: str) -> "Iterator[_Watch]":
        """The watch of this task, which is kept for as long as anybody needs it."""
        key = (task_id, caller.sees)
        if key not in self._watches:
            listen = partial(self._lookout.on_end, task_id)
            self._watches[key] = _Watch(partial(self._read, caller, task_id), listen)
        watch = self._watches[key]
        watch.users += 1
        try:
            yield watch
        finally:
            watch.users -= 1
            if not watch.users:
                watch.close()
                del self._watches[key]


class _Watch:
    """One task, read once for all who wait for its end.

    `woken` is done as soon as anything may have changed. Who takes it before a look, and waits for
    it after that, misses nothing.
    """

    def __init__(self, read: Callable[[], Awaitable[TaskView | None]], listen: Listen) -> None:
        self.users = 0
        self.woken = asyncio.get_running_loop().create_future()
        self._read = read
        self._reading: asyncio.Future[TaskView | None] | None = None
        self._read_at = -inf
        self._stop_listening = listen(self.wake)

    async def look(self, oldest_seconds: float = inf) -> TaskView | None:
        """The task as somebody read it since it was woken, at most this long ago."""
        now = asyncio.get_running_loop().time()
        if self._reading is None or self._read_at < now - oldest_seconds:
            self._reading = asyncio.ensure_future(self._read())
            self._read_at = now
        try:
            return await asyncio.shield(self._reading)
        except StoreError:
            self._reading = None  # the next one may have more luck
            raise

    def close(self) -> None:
        """Nobody waits any more."""
        self._stop_listening()
        if self._reading is not None:
            self._reading.cancel()

    def wake(self) -> None:
        """What was read before may be out of date."""
        self._reading = None
        self.woken.set_result(None)
        self.woken = asyncio.get_running_loop().create_future()
