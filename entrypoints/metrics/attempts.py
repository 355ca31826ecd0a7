"""What came of the attempts of this process, as far as its calls to the store tell."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry

from domain.ports import ATTEMPT_OUTCOMES, Claim, Fence, Outcome
from domain.task import AttemptOutcome, TaskStatus
from entrypoints.metrics.tallies import Tally


class Attempts:
    """Remembers which attempts run, to know of what executor they are, and which were lost."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._executors: dict[Fence, str] = {}
        self._ended = Tally(
            "task_agent_attempts",
            "Attempts of this process whose end is written.",
            registry,
            ["executor", "outcome"],
        )
        self._refused = Tally(
            "task_agent_fenced_writes",
            "Writes that changed nothing: their attempt was no longer the running one.",
            registry,
        )
        self._lost = Tally(
            "task_agent_leases_lost",
            "Attempts of this process that were stopped because their lease was not sure.",
            registry,
        )
        self._reclaimed = Tally(
            "task_agent_tasks_reclaimed",
            "Tasks that this process took away from workers that vanished.",
            registry,
        )

    def begin(self, claims: Iterable[Claim]) -> None:
        """These run from now on."""
        for claim in claims:
            self._executors[claim.fence] = claim.task.executor

    def running(self) -> set[Fence]:
        """Those that began, and whose end is neither written nor on its way."""
        return set(self._executors)

    def leave(self, outcomes: Iterable[Outcome]) -> dict[Fence, str]:
        """The ends of these are on their way; gives their executors, for `end` or `resume`."""
        left: dict[Fence, str] = {}
        for outcome in outcomes:
            executor = self._executors.pop(outcome.fence, None)
            if executor is not None:
                left[outcome.fence] = executor
        return left

    def resume(self, executors: Mapping[Fence, str]) -> None:
        """Nothing is known to be written of these."""
        self._executors.update(executors)

    def end(
        self,
        outcomes: Sequence[Outcome],
        statuses: Sequence[TaskStatus | None],
        executors: Mapping[Fence, str],
    ) -> None:
        """So these ended (`TaskQueue.settle`)."""
        for outcome, status in zip(outcomes, statuses, strict=True):
            if status is None:
                self._refused.add()
                continue
            executor = executors.get(outcome.fence)
            if executor is not None:
                was_cancelled = status is TaskStatus.CANCELLED
                ended = (
                    AttemptOutcome.CANCELLED if was_cancelled else ATTEMPT_OUTCOMES[type(outcome)]
                )
                self._ended.add(executor, ended)

    def refuse(self, writes: int) -> None:
        """So many writes changed nothing."""
        self._refused.add(times=writes)

    def lose(self, fences: Collection[Fence]) -> None:
        """These are not this process's any more."""
        for fence in fences & self._executors.keys():
            del self._executors[fence]
            self._lost.add()

    def reclaim(self, tasks: int) -> None:
        """So many tasks were taken away from their workers."""
        self._reclaimed.add(times=tasks)
