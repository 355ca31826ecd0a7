"""Who waits for something to happen to tasks, and how they hear of it.

A hint of the store says so at once; one question for all these tasks together says it soon, where
the hint was lost or came up on another node.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Final

from domain.ports import WATCHED_SECONDS, Standing, Store

_WATCH_EVERY_SECONDS: Final = WATCHED_SECONDS / 3

Wake = Callable[[], None]
Listen = Callable[[Wake], Callable[[], None]]
"""Begins to wake somebody, and gives a function that ends it."""

_Listeners = dict[str, list[Wake]]


class Lookout:
    """Wakes those who wait. A wake may be for nothing."""

    def __init__(self, store: Store, poll_seconds: float) -> None:
        self._store = store
        self._poll_seconds = poll_seconds
        self._of_ends: _Listeners = {}
        self._of_events: _Listeners = {}
        self._standings: Mapping[str, Standing] = {}
        self._all_left = asyncio.Event()
        self._all_left.set()
        self.is_released = False

    def on_end(self, task_id: str, wake: Wake) -> Callable[[], None]:
        """Call `wake` when this task may have ended, or be gone. Returns a function that ends this.

        Here and below, what happened before this call wakes nobody.
        """
        return self._listen(self._of_ends, task_id, wake)

    def on_events(self, task_id: str, wake: Wake) -> Callable[[], None]:
        """Call `wake` when anything may have happened to this task, which is watched until then."""
        self._store.watch([task_id])
        return self._listen(self._of_events, task_id, wake)

    def tell_end(self, task_ids: Collection[str]) -> None:
        """These tasks may have ended."""
        _wake(self._of_ends, task_ids)
        _wake(self._of_events, task_ids)

    def tell_events(self, task_ids: Collection[str]) -> None:
        """Something may have happened to these tasks."""
        _wake(self._of_events, task_ids)

    async def poll(self) -> float:
        """Ask what happened to the tasks; answers after how long to ask again."""
        asked = self._of_ends.keys() | self._of_events.keys()
        if asked:
            standings = await self._store.standings(asked)
            gone = asked - standings.keys()
            self.tell_end([*gone, *(one for one, now in standings.items() if now.done)])
            known, self._standings = self._standings, standings
            self.tell_events([one for one, now in standings.items() if now != known.get(one)])
        return self._poll_seconds

    async def keep_watching(self) -> float:
        """Say anew which tasks somebody follows; answers after how long to say it again."""
        if self._of_events:
            self._store.watch(list(self._of_events))
        return _WATCH_EVERY_SECONDS

    def release(self) -> None:
        """Let nobody wait, from now on."""
        self.is_released = True
        self.tell_end([*self._of_ends, *self._of_events])

    async def all_left(self) -> None:
        """Return when nobody waits any more."""
        await self._all_left.wait()

    def _listen(self, listeners: _Listeners, task_id: str, wake: Wake) -> Callable[[], None]:
        listeners.setdefault(task_id, []).append(wake)
        self._all_left.clear()
        return partial(self._stop_listening, listeners, task_id, wake)

    def _stop_listening(self, listeners: _Listeners, task_id: str, wake: Wake) -> None:
        listeners[task_id].remove(wake)
        if not listeners[task_id]:
            del listeners[task_id]
        if not (self._of_ends or self._of_events):
            self._all_left.set()


def _wake(listeners: _Listeners, task_ids: Collection[str]) -> None:
    for task_id in listeners.keys() & task_ids if listeners else ():
        for wake in tuple(listeners[task_id]):
            wake()
