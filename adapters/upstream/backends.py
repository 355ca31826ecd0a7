"""The backends of one executor: which to ask next, and which to leave alone until they are back.

Of those whose breaker lets an attempt in, the least busy one is asked; of equally busy ones, the
first in the order of the settings. While a breaker is open, its backend is probed every five
seconds, and only then is a task of this loop alive.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Final

from msgspec import Struct

from adapters.upstream.breaker import Breaker

PROBE_EVERY_SECONDS: Final = 5.0


class Target(Struct, frozen=True):
    """Where requests go, and what a probe gets: None where a connection must tell enough."""

    url: str
    probe_url: str | None


class Turn(Struct, frozen=True, eq=False):
    """One attempt at one backend, from when it was chosen."""

    backend: "_Backend"
    era: int

    @property
    def target(self) -> Target:
        """Whom it asks."""
        return self.backend.target


class _Backend:
    def __init__(self, target: Target) -> None:
        self.target = target
        self.breaker = Breaker()
        self.running = 0
        self.probing: asyncio.Task[None] | None = None


class Backends:
    """Chooses among backends. What it begins must be ended."""

    def __init__(
        self, targets: Collection[Target], is_alive: Callable[[Target], Awaitable[bool]]
    ) -> None:
        """`is_alive` is the probe: it answers within a few seconds, and raises nothing."""
        self._backends = [_Backend(target) for target in targets]
        self._is_alive = is_alive

    async def stop_probing(self) -> None:
        """To be called when it is no longer used."""
        probing = [each.probing for each in self._backends if each.probing is not None]
        for task in probing:
            task.cancel()
        await asyncio.gather(*probing, return_exceptions=True)

    def room(self) -> int | None:
        """For how many more attempts there is room in all; None: for any number."""
        room = 0
        for backend in self._backends:
            left = backend.breaker.room()
            if left is None:
                return None
            room += left
        return room

    def begin(self, tried: Collection[Target]) -> Turn | None:
        """The next backend to ask, if there is one besides those that were tried."""
        free = [
            each for each in self._backends if each.target not in tried and each.breaker.room() != 0
        ]
        if not free:
            return None
        chosen = min(free, key=lambda each: each.running)
        chosen.running += 1
        return Turn(chosen, chosen.breaker.begin())

    def end(self, turn: Turn, is_well: bool | None) -> None:
        """The attempt is over; `is_well` tells how the backend did, None that nobody knows."""
        backend = turn.backend
        backend.running -= 1
        backend.breaker.end(turn.era, is_well)
        if backend.breaker.is_open and backend.probing is None:
            backend.probing = asyncio.create_task(self._probe(backend))

    async def _probe(self, backend: _Backend) -> None:
        try:
            while backend.breaker.is_open:
                await asyncio.sleep(PROBE_EVERY_SECONDS)
                if await self._is_alive(backend.target):
                    backend.breaker.found_alive()
        finally:
            backend.probing = None
