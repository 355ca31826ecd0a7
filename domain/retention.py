"""Which finished tasks may go: a policy that answers with values, and removes nothing."""

from msgspec import Struct

from domain.instants import before


class RetentionPolicy(Struct, frozen=True):
    """How long, and how many, tasks are kept. 0 means that this rule removes nothing."""

    retention_seconds: float
    max_tasks: int

    def finished_before(self, now: int) -> int | None:
        """Tasks that finished before this instant are expired; None: age expires nothing."""
        return before(now, self.retention_seconds) if self.retention_seconds > 0 else None

    def excess(self, total: int, arriving: int = 0) -> int:
        """How many of `total` tasks are too many once `arriving` more are stored."""
        return max(0, total + arriving - self.max_tasks) if self.max_tasks > 0 else 0
