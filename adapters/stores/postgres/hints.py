"""Hints between processes: LISTEN and NOTIFY, on a connection that nothing else uses.

Hints are sent at most every few milliseconds, however many there are: each NOTIFY takes a lock on
the whole database when its transaction commits. What is sent is a letter (`w`: work, `c`: cancel),
or as many ids as a notification holds: of tasks that ended, behind a `+` of those that somebody
watches, behind a `*` of watched ones to which something happened. The connection is asked for a
sign of life now and then, for it can die without a word, and is made anew when it does not give
one. Whatever is missed meanwhile is found by polling.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

import asyncpg

from adapters.feed import LocalFeed
from adapters.stores.postgres.connections import LOST

_CHANNEL: Final = "task_hint"
_WORK: Final = "w"
_CANCEL: Final = "c"
_ENDED: Final = ""
_WATCHED: Final = "+"
_HAPPENED: Final = "*"
_NOTIFY: Final = f"SELECT pg_notify('{_CHANNEL}', unnest($1::text[]))"
_MOST_UNSENT: Final = 10_000
_IDS_PER_NOTIFICATION: Final = 200  # of 36 characters each; it holds less than 8,000 bytes
_COALESCE_SECONDS: Final = 0.005
_HEARTBEAT_SECONDS: Final = 5.0
_RECONNECT_SECONDS: Final = 1.0


class Hints(LocalFeed):
    """The listeners of this process, and its line to those of the others."""

    def __init__(self, connect: Callable[[], Any], monotonic: Callable[[], float]) -> None:
        """`connect` opens a connection, which is this object's own."""
        super().__init__(monotonic)
        self._connect = connect
        self._letters: set[str] = set()
        self._ids = {
            what: deque[str](maxlen=_MOST_UNSENT) for what in (_ENDED, _WATCHED, _HAPPENED)
        }
        self._may_send = asyncio.Event()
        self._server_pid = 0

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

    # --- told here: to the listeners of this process at once, to the others soon --------------

    def tell_work(self) -> None:
        """A task became pending, or may be claimed by others than before."""
        super().tell_work()
        self._letters.add(_WORK)
        self._may_send.set()

    def tell_cancel(self) -> None:
        """A running task is to be stopped."""
        super().tell_cancel()
        self._letters.add(_CANCEL)
        self._may_send.set()

    def tell_end(self, task_ids: Collection[str]) -> None:
        """These tasks ended, or were deleted."""
        super().tell_end(task_ids)
        self._send(_ENDED, task_ids)

    def watch(self, task_ids: Collection[str]) -> None:
        """See `TaskFeed.watch`."""
        super().watch(task_ids)
        self._send(_WATCHED, task_ids)

    def tell_watchers(self, task_ids: Collection[str]) -> None:
        """Something happened to these tasks, which are watched."""
        super().tell_watchers(task_ids)
        self._send(_HAPPENED, task_ids)

    def _send(self, what: str, task_ids: Collection[str]) -> None:
        self._ids[what].extend(task_ids)
        self._may_send.set()

    # --- carried ------------------------------------------------------------------------------

    async def _carry_always(self) -> None:
        """Carry hints until cancelled, over as many connections as it takes."""
        while True:
            with suppress(*LOST):
                await self._carry(await self._connect())
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _carry(self, connection: asyncpg.Connection) -> None:
        try:
            self._server_pid = connection.get_server_pid()
            await connection.add_listener(_CHANNEL, self._heard)
            while True:
                await self._next_round(connection)
        finally:
            connection.terminate()

    async def _next_round(self, connection: asyncpg.Connection) -> None:
        try:
            async with asyncio.timeout(_HEARTBEAT_SECONDS):
                await self._may_send.wait()
        except TimeoutError:
            await connection.execute("SELECT 1", timeout=_HEARTBEAT_SECONDS)
            return
        self._may_send.clear()
        await connection.execute(_NOTIFY, list(self._payloads()), timeout=_HEARTBEAT_SECONDS)
        await asyncio.sleep(_COALESCE_SECONDS)

    def _payloads(self) -> Iterator[str]:
        letters, self._letters = self._letters, set()
        yield from letters
        for what, unsent in self._ids.items():
            ids = list(unsent)
            unsent.clear()
            for start in range(0, len(ids), _IDS_PER_NOTIFICATION):
                yield what + ",".join(ids[start : start + _IDS_PER_NOTIFICATION])

    def _heard(self, _connection: object, sender: int, _channel: str, payload: str) -> None:
        if sender == self._server_pid:  # not asked of the connection: it may have ended meanwhile
            return
        if payload == _WORK:
            super().tell_work()
        elif payload == _CANCEL:
            super().tell_cancel()
        elif payload.startswith(_WATCHED):
            super().watch(payload[1:].split(","))
        elif payload.startswith(_HAPPENED):
            super().tell_watchers(payload[1:].split(","))
        else:
            super().tell_end(payload.split(","))
