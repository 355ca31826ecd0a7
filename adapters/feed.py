"""Hints to those who listen in this process."""

from collections.abc import Callable, Collection
from functools import partial
from typing import ParamSpec

from domain.task import TERMINAL, TaskStatus

P = ParamSpec("P")


class LocalFeed:
    """A `TaskFeed` whose store tells it what was committed."""

    def __init__(self) -> None:
        self._of_work: list[Callable[[], None]] = []
        self._of_cancels: list[Callable[[], None]] = []
        self._of_ends: list[Callable[[Collection[str]], None]] = []

    def on_work(self, listener: Callable[[], None]) -> Callable[[], None]:
        """See `TaskFeed.on_work`."""
        return _listen(self._of_work, listener)

    def on_cancel(self, listener: Callable[[], None]) -> Callable[[], None]:
        """See `TaskFeed.on_cancel`."""
        return _listen(self._of_cancels, listener)

    def on_end(self, listener: Callable[[Collection[str]], None]) -> Callable[[], None]:
        """See `TaskFeed.on_end`."""
        return _listen(self._of_ends, listener)

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

    def tell_moves(
        self, task_ids: Collection[str], statuses: Collection[TaskStatus | None]
    ) -> None:
        """These tasks left their workers, and are now in these statuses; None: it did not."""
        if TaskStatus.PENDING in statuses:
            self.tell_work()
        moved = zip(task_ids, statuses, strict=True)
        ended = [task_id for task_id, status in moved if status in TERMINAL]
        if ended:
            self.tell_end(ended)


def _listen(listeners: list[Callable[P, None]], listener: Callable[P, None]) -> Callable[[], None]:
    listeners.append(listener)
    return partial(listeners.remove, listener)
