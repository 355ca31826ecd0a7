"""What is known of the tasks without looking, so that the usual step only compares numbers."""

from msgspec import Struct

from domain.task import TaskStatus


class Numbers(Struct):
    """They are those of the transaction so far; one that is rolled back takes them back.

    `newest` is the `number` of the newest task. No finished task ended before `oldest_completion`,
    no waiting task is due before `first_due`; None where there is none.
    """

    newest: int
    counts: dict[TaskStatus, int]
    oldest_completion: int | None
    first_due: int | None

    def copy(self) -> "Numbers":
        """The same numbers, to be changed apart."""
        return Numbers(self.newest, self.counts.copy(), self.oldest_completion, self.first_due)

    def move(self, origin: TaskStatus, target: TaskStatus, tasks: int = 1) -> None:
        """So many tasks are in another status now."""
        self.counts[origin] -= tasks
        self.counts[target] += tasks

    def note_completion(self, instant: int | None) -> None:
        """A task ended then; None: it did not."""
        if instant is not None:
            self.oldest_completion = min(self.oldest_completion or instant, instant)

    def note_waiting(self, due_at: int) -> None:
        """A task waits until then."""
        self.first_due = min(self.first_due or due_at, due_at)
