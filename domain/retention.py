"""Which finished tasks may go: a policy that answers with values, and removes nothing."""

from msgspec import Struct

from domain.instants import after, before


class RetentionPolicy(Struct, frozen=True):
    """How long, and how many, tasks are kept. 0 means that this rule removes nothing."""

    retention_seconds: float
    max_tasks: int

    def finished_before(self, now: int) -> int | None:
        """Tasks that finished before this instant are expired; None: age expires nothing."""
        return before(now, self.retention_seconds) if self.retention_seconds > 0 else None

    def expires_at(self, completed_at: int | None) -> int | None:
        """When a task that ended then may go by its age; None: it has not, or age is no reason."""
        if completed_at is None or self.retention_seconds <= 0:
            return None
        return after(completed_at, self.retention_seconds)

    def excess(self, total: int, arriving: int = 0) -> int:
        """How many of `total` tasks are too many once `arriving` more are stored."""
        return max(0, total + arriving - self.max_tasks) if self.max_tasks > 0 else 0
