"""Hints between processes: LISTEN and NOTIFY, on a connection that nothing else uses.

A hint carries nothing but "look", and is sent at most every few milliseconds, however many tasks
came: each NOTIFY takes a lock on the whole database when its transaction commits. The connection
is asked for a sign of life now and then, for it can die without a word, and is made anew when it
does not give one. Whatever is missed meanwhile is found by polling.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

import asyncpg

from adapters.stores.postgres.connections import LOST

_CHANNEL: Final = "task_work"
_COALESCE_SECONDS: Final = 0.005
_HEARTBEAT_SECONDS: Final = 5.0
_RECONNECT_SECONDS: Final = 1.0


class Hints:
    """The listeners of this process, and its line to those of the others."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        """`connect` opens a connection, which is this object's own."""
        self._connect = connect
        self._listeners: list[Callable[[], None]] = []
        self._unsent = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._carrying = asyncio.create_task(self._carry_always())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._carrying.cancel()
        await asyncio.wait([self._carrying])

    def on_work(self, listener: Callable[[], None]) -> Callable[[], None]:
        """See `TaskFeed.on_work`."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def work(self) -> None:
        """Tell the listeners here at once, and those elsewhere soon."""
        self._tell()
        self._unsent.set()

    async def _carry_always(self) -> None:
        """Carry hints until cancelled, over as many connections as it takes."""
        while True:
            with suppress(*LOST):
                await self._carry(await self._connect())
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _carry(self, connection: asyncpg.Connection) -> None:
        try:
            await connection.add_listener(_CHANNEL, self._heard)
            while True:
                await self._next_round(connection)
        finally:
            connection.terminate()

    async def _next_round(self, connection: asyncpg.Connection) -> None:
        try:
            async with asyncio.timeout(_HEARTBEAT_SECONDS):
                await self._unsent.wait()
        except TimeoutError:
            await connection.execute("SELECT 1", timeout=_HEARTBEAT_SECONDS)
            return
        self._unsent.clear()
        await connection.execute(f"NOTIFY {_CHANNEL}", timeout=_HEARTBEAT_SECONDS)
        await asyncio.sleep(_COALESCE_SECONDS)

    def _heard(self, connection: Any, sender: int, *_: object) -> None:
        if sender != connection.get_server_pid():
            self._tell()

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()
