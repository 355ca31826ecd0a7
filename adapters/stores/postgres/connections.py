"""The connections of a store: kept while they answer, dropped when they do not.

    answered, be it with an error    kept for the next call
    found closed while idle          dropped; the call takes another one, or makes one
    lost in the middle of a call     dropped; the call is sent once more, on another one
    silent for as long as it may     dropped; the time of the call is up

What is lost or silent tells of the others too: the server restarted, or a network between forgot
them all. So everything idle is dropped with it, and no later call waits to find that out again.

To send a statement twice is safe, whether or not the first one was executed. Reads change nothing;
the writes of workers are fenced; a claim that nobody heard of ends with its lease; and an id that
is stored is refused the second time, so that its submit fails, and the task is there as a whole.

The server keeps the plan of each statement for as long as the connection lives, and made for empty
tables it reads all of them once they are full, until somebody analyses them: a claim of 64 among
20,000 tasks read 80,000 rows. So plans are made anew every other second, from what the tables are
then. To plan each call anew would cost the server a third more for a claim, and five times as much
for a get.

asyncpg's own pool would hide too much: after each statement it resets a session that nothing here
changes (one more round trip), it waits for a silent server to take note of a cancellation, and it
lets each call meet its dead connection by itself.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final
from weakref import WeakKeyDictionary

import asyncpg

LOST: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # of a connection that the server just ended
    OSError,
    TimeoutError,
)
_TRIES: Final = 3
_WORTH_ANOTHER_TRY: Final = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
_CLOSE_SECONDS: Final = 0.5
PLANS_KEPT_SECONDS: Final = 2.0


class Connections:
    """At most so many connections, each made when it is first needed. Waiting calls take turns."""

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection]], most: int) -> None:
        self._connect = connect
        self._free = asyncio.Semaphore(most)
        self._idle: list[asyncpg.Connection] = []
        self._planned: WeakKeyDictionary[asyncpg.Connection, float] = WeakKeyDictionary()
        self._is_closed = False

    async def fetch(self, statement: str, *values: object) -> list[asyncpg.Record]:
        """The rows of one statement, which is one transaction.

        Waits as long as it is let; a caller that waits no longer cancels this.
        """
        for _ in range(_TRIES - 1):
            with suppress(*_WORTH_ANOTHER_TRY):
                return await self._fetch(statement, *values)
        return await self._fetch(statement, *values)

    async def open_first(self) -> None:
        """Make a connection now, so that a server which is full later cannot refuse it."""
        self._idle.append(await self._connect())

    async def aclose(self) -> None:
        """Close what is idle; what is in use is dropped when its call ends."""
        self._is_closed = True
        await asyncio.gather(*(self._part_from(connection) for connection in self._idle))

    async def _fetch(self, statement: str, *values: object) -> list[asyncpg.Record]:
        async with self._free:
            connection = self._take() or await self._connect()
            try:
                await self._forget_old_plans(connection)
                rows: list[asyncpg.Record] = await connection.fetch(statement, *values)
            except asyncpg.PostgresError:  # an answer, unless it tells of the connection's end
                self._give_back(connection)
                raise
            except BaseException:
                connection.terminate()
                self._give_back(connection)
                raise
            self._give_back(connection)
            return rows

    async def _forget_old_plans(self, connection: asyncpg.Connection) -> None:
        now = asyncio.get_running_loop().time()
        if self._planned.setdefault(connection, now) < now - PLANS_KEPT_SECONDS:
            await connection.execute("DISCARD PLANS")
            self._planned[connection] = now

    def _take(self) -> asyncpg.Connection | None:
        """The idle connection that was used last, so that the others are seldom needed."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return None

    def _give_back(self, connection: asyncpg.Connection) -> None:
        if connection.is_closed():
            self._drop_idle()
        elif self._is_closed:
            connection.terminate()
        else:
            self._idle.append(connection)

    def _drop_idle(self) -> None:
        while self._idle:
            self._idle.pop().terminate()

    async def _part_from(self, connection: asyncpg.Connection) -> None:
        """Say goodbye to the server, but not at any price."""
        with suppress(*LOST):
            await connection.close(timeout=_CLOSE_SECONDS)
