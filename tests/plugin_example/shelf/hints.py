"""The hints of a store in one process: who listens is told at once."""

from collections.abc import Callable, Collection
from typing import Any

from domain.ports import WATCHED_SECONDS

Listener = Callable[..., None]


class Hints:
    """Those who listen, by what they listen to, and the tasks that somebody watches."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._listeners: dict[str, list[Listener]] = {}
        self._watched: dict[str, float] = {}  # until when

    def on_work(self, listener: Callable[[], None]) -> Callable[[], None]:
        return self._listen("work", listener)

    def on_cancel(self, listener: Callable[[], None]) -> Callable[[], None]:
        return self._listen("cancel", listener)

    def on_end(self, listener: Callable[[Collection[str]], None]) -> Callable[[], None]:
        return self._listen("end", listener)

    def on_events(self, listener: Callable[[Collection[str]], None]) -> Callable[[], None]:
        return self._listen("events", listener)

    def on_watch(self, listener: Callable[[], None]) -> Callable[[], None]:
        return self._listen("watch", listener)

    def watch(self, task_ids: Collection[str]) -> None:
        now = self._monotonic()
        self._watched = {known: until for known, until in self._watched.items() if until > now}
        self._watched.update(dict.fromkeys(task_ids, now + WATCHED_SECONDS))
        self.tell("watch")

    def is_watched(self, task_id: str) -> bool:
        return self._watched.get(task_id, 0.0) > self._monotonic()

    def tell(self, what: str, *said: Any) -> None:
        for listener in tuple(self._listeners.get(what, ())):
            listener(*said)

    def _listen(self, what: str, listener: Listener) -> Callable[[], None]:
        listeners = self._listeners.setdefault(what, [])
        listeners.append(listener)
        return lambda: listeners.remove(listener)
