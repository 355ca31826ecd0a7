"""When to come back: what every `Retry-After` says that the queue decides."""

import asyncio
from math import inf
from typing import Final

from domain.errors import StoreUnavailable
from domain.service import TaskService
from entrypoints.http.errors import retry_in

READ_EVERY_SECONDS: Final = 1.0


class Backlog:
    """How long a task waits before its turn, as far as is known; read once a second at most."""

    def __init__(self, tasks: TaskService) -> None:
        self._tasks = tasks
        self._seconds = retry_in(0)
        self._read_at = -inf

    async def seconds(self) -> int:
        """After how many seconds to come back (`retry_in`)."""
        now = asyncio.get_running_loop().time()
        if now - self._read_at >= READ_EVERY_SECONDS:
            self._read_at = now
            await self._look()
        return self._seconds

    async def _look(self) -> None:
        try:
            waited = await self._tasks.backlog_seconds()
        except StoreUnavailable:
            return  # what was so a moment ago will do
        self._seconds = retry_in(waited)
