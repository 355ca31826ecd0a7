"""Hints to those who listen in this process."""

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import ParamSpec

from domain.ports import WATCHED_SECONDS, Outcome, Reclaimed
from domain.task import TERMINAL, TaskStatus

P = ParamSpec("P")


class LocalFeed:
    """A `TaskFeed` whose store tells it what was committed."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._watched: dict[str, float] = {}  # until when
        self._tidy_at = 0.0
        self._of_work: list[Callable[[], None]] = []
        self._of_cancels: list[Callable[[], None]] = []
        self._of_ends: list[Callable[[Collection[str]], None]] = []
        self._of_events: list[Callable[[Collection[str]], None]] = []
        self._of_watches: list[Callable[[], None]] = []

    def on_work(self, listener: Callable[[], None]) -> Callable[[], None]:
        """See `TaskFeed.on_work`."""
        return _listen(self._of_work, listener)

    def on_cancel(self, listener: Callable[[], None]) -> Callable[[], None]:
        """See `TaskFeed.on_cancel`."""
        return _listen(self._of_cancels, listener)

    def on_end(self, listener: Callable[[Collection[str]], None]) -> Callable[[], None]:
        """See `TaskFeed.on_end`."""
        return _listen(self._of_ends, listener)

    def on_events(self, listener: Callable[[Collection[str]], None]) -> Callable[[], None]:
        """See `TaskFeed.on_events`."""
        return _listen(self._of_events, listener)

    def on_watch(self, listener: Callable[[], None]) -> Callable[[], None]:
        """See `TaskFeed.on_watch`."""
        return _listen(self._of_watches, listener)

    def watch(self, task_ids: Collection[str]) -> None:
        """See `TaskFeed.watch`."""
        now = self._monotonic()
        if now >= self._tidy_at:
            self._watched = {known: until for known, until in self._watched.items() if until > now}
            self._tidy_at = now + WATCHED_SECONDS
        self._watched.update(dict.fromkeys(task_ids, now + WATCHED_SECONDS))
        for listener in tuple(self._of_watches):
            listener()

    def is_watched(self, task_id: str) -> bool:
        """See `TaskFeed.is_watched`."""
        return self._watched.get(task_id, 0.0) > self._monotonic() if self._watched else False

    def tell_work(self) -> None:
        """A task became pending, or may be claimed by others than before."""
        for listener in tuple(self._of_work):
            listener()

    def tell_cancel(self) -> None:
        """A running task is to be stopped."""
        for listener in tuple(self._of_cancels):
            listener()

    def tell_end(self, task_ids: Collection[str]) -> None:
        """These tasks ended, or were deleted."""
        for listener in tuple(self._of_ends):
            listener(task_ids)

    def tell_events(self, task_ids: Iterable[str]) -> None:
        """Something happened to these tasks; those who watch one are told."""
        watched = [one for one in task_ids if self.is_watched(one)] if self._watched else []
        if watched:
            self.tell_watchers(watched)

    def tell_watchers(self, task_ids: Collection[str]) -> None:
        """Something happened to these tasks, which are watched."""
        for listener in tuple(self._of_events):
            listener(task_ids)

    def tell_moves(
        self, moved: Sequence[Outcome | Reclaimed], statuses: Sequence[TaskStatus | None]
    ) -> None:
        """These attempts are over, and their tasks are now in these statuses; None: it is not."""
        task_ids = [one.fence.task_id for one in moved]
        if TaskStatus.PENDING in statuses:
            self.tell_work()
            self.tell_events(task_ids)
        ended = [one for one, status in zip(task_ids, statuses, strict=True) if status in TERMINAL]
        if ended:
            self.tell_end(ended)


def _listen(listeners: list[Callable[P, None]], listener: Callable[P, None]) -> Callable[[], None]:
    listeners.append(listener)
    return partial(listeners.remove, listener)
