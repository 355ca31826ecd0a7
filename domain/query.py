"""Questions about many tasks: filters, an order, and a page at a time."""

from typing import Final

from msgspec import Struct

from domain.task import Task, TaskStatus

ROWS_PER_PAGE: Final = 1_000
"""How many tasks are looked at for one page, matching or not."""


class Position(Struct, frozen=True):
    """A place in the order of creation: `number` tells tasks apart that were created at once.

    What `number` is the store's own business; it never changes, and grows with acceptance.
    """

    created_at: int
    number: int


class TaskQuery(Struct, frozen=True, kw_only=True):
    """Which tasks, in which order, and how many at most. What is None or empty filters nothing.

    Both bounds of `created_at` are exclusive. `start` is `Page.next` of the page before. Results
    and inputs are read only where asked for.
    """

    owner: str | None
    statuses: frozenset[TaskStatus] = frozenset()
    executor: str | None = None
    model: str | None = None
    created_after: int | None = None
    created_before: int | None = None
    newest_first: bool = True
    start: Position | None = None
    limit: int = 20
    with_result: bool = False
    with_input: bool = False

    def matches(self, task: Task) -> bool:
        """Whether this is one of the tasks asked for, on whichever page."""
        return (
            self.owner in (None, task.owner)
            and (not self.statuses or task.status in self.statuses)
            and self.executor in (None, task.executor)
            and self.model in (None, task.model)
            and (self.created_after is None or task.created_at > self.created_after)
            and (self.created_before is None or task.created_at < self.created_before)
        )


class Found(Struct, frozen=True):
    """A task of a page. `task.result` and `input` (JSON text) are None where not asked for."""

    task: Task
    input: bytes | None


class Page(Struct, frozen=True):
    """Tasks in the order asked for. `next` is where more may follow; None: there are no more."""

    found: list[Found]
    next: Position | None
