"""Any sequence of calls leaves a store as a plain dict says that it should be.

The model keeps one `Known` per task and moves it with the domain's own moves. Rules play clients,
two workers (old claims of theirs write too), time, crashes and the sweep; after each step the store
must hold exactly what the model holds.
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Coroutine
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from adapters.testing.fakes import FakeClock
from adapters.testing.store_case import MOVED, OUTCOMES, Case, new_task
from domain.inference import Routes
from domain.instants import after
from domain.ports import (
    PURGED_PER_SUBMIT,
    Accepted,
    Fence,
    QueueFull,
    Store,
    SubmitLimits,
    TaskCounts,
)
from domain.retention import RetentionPolicy
from domain.task import ANONYMOUS, Move, Task, TaskStatus

T = TypeVar("T")

LEASE = 30.5  # no sum of ticks: a lease is never looked at in the moment of its end
EXPIRED = 0
EXECUTORS = ("echo", "llama")
ROUTES = [
    Routes(by_model={"m": "llama"}, fallback="echo"),
    Routes(by_model={}, fallback="echo"),
    Routes(by_model={"m": "llama"}, fallback="llama"),
]
RETENTIONS = st.builds(
    RetentionPolicy, st.sampled_from([0.0, 40.0, 400.0]), st.sampled_from([0, 1, 4, 8])
)
WORKERS = st.sampled_from(["worker-1", "worker-2"])


@dataclass
class Known:
    """What the model knows of a task. `number` is its place in the order of acceptance."""

    task: Task
    number: int
    input: bytes
    worker: str = ""
    lease_until: int = EXPIRED


class StoreMachine(RuleBasedStateMachine):
    kind: ClassVar[Any]  # of store, a `StoreKind` of this folder's conftest

    @initialize()
    def begin(self) -> None:
        self.known: dict[str, Known] = {}
        self.accepted = 0
        self.fences: list[Fence] = []
        self.runner = asyncio.Runner()
        self.folder = TemporaryDirectory()
        self.case = Case(self.kind.open_store, Path(self.folder.name))
        self.run(self.case.__aenter__())
        self.submit(["echo", "llama", "gone"], None, 1_000, RetentionPolicy(0, 0))
        self.claim("worker-1", {"echo": 1, "llama": 1})

    def teardown(self) -> None:
        self.run(self.case.__aexit__(None, None, None))
        self.runner.close()
        self.folder.cleanup()

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    @property
    def store(self) -> Store:
        return self.case.store

    @property
    def clock(self) -> FakeClock:
        return self.case.clock

    def of(self, status: TaskStatus) -> list[Known]:
        return [known for known in self.known.values() if known.task.status is status]

    # --- clients ---------------------------------------------------------------------------------

    @rule(
        executors=st.lists(st.sampled_from([*EXECUTORS, "gone"]), min_size=1, max_size=4),
        model=st.sampled_from([None, "m"]),
        max_pending=st.sampled_from([3, 1_000]),
        retention=RETENTIONS,
    )
    def submit(
        self, executors: list[str], model: str | None, max_pending: int, retention: RetentionPolicy
    ) -> None:
        news = [new_task(executor=executor, model=model) for executor in executors]
        answers = self.run(self.store.submit(news, SubmitLimits(max_pending, retention)))
        self.forget_removed(retention, len(news), PURGED_PER_SUBMIT)
        for new, answer in zip(news, answers, strict=True):
            pending = len(self.of(TaskStatus.PENDING))
            if pending >= max_pending:
                assert answer == QueueFull(pending)
                continue
            task = new.accepted(self.clock.now())
            assert answer == Accepted(task)
            self.accepted += 1
            self.known[new.id] = Known(task, self.accepted, new.input)

    # --- workers ---------------------------------------------------------------------------------

    @rule(worker=WORKERS, room=st.fixed_dictionaries(dict.fromkeys(EXECUTORS, st.integers(0, 4))))
    def claim(self, worker: str, room: dict[str, int]) -> None:
        claims = self.run(self.store.claim(worker, room, LEASE))
        for executor, free in room.items():
            taken = [claim for claim in claims if claim.task.executor == executor]
            due = self.due(executor)[:free]
            for claim, known in zip(taken, due, strict=True):
                known.task = known.task.claimed(self.clock.now())
                known.worker, known.lease_until = worker, after(self.clock.now(), LEASE)
                assert (claim.task, claim.input) == (known.task, known.input)
        self.fences += [claim.fence for claim in claims]

    def due(self, executor: str) -> list[Known]:
        due = [
            known
            for known in self.of(TaskStatus.PENDING)
            if known.task.executor == executor and known.task.rank <= self.clock.now()
        ]
        return sorted(due, key=lambda known: (known.task.rank, known.number))

    def holder(self, fence: Fence) -> Known | None:
        """The task, if this attempt is the running one."""
        known = self.known.get(fence.task_id)
        if known is None or known.task.status is not TaskStatus.RUNNING:
            return None
        return known if known.task.attempt == fence.attempt else None

    @precondition(lambda self: self.fences)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        fences = data.draw(st.lists(st.sampled_from(self.fences), unique=True))
        self.renew_these(fences)

    def renew_these(self, fences: list[Fence]) -> None:
        held = self.run(self.store.renew(fences, LEASE))
        assert held == {fence for fence in fences if self.holder(fence)}
        for fence in held:
            self.known[fence.task_id].lease_until = after(self.clock.now(), LEASE)

    @precondition(lambda self: self.fences)
    @rule(data=st.data(), move=st.sampled_from(sorted(OUTCOMES)))
    def settle(self, data: st.DataObject, move: Move) -> None:
        fence = data.draw(st.sampled_from(self.fences))
        written = self.run(self.case.settle(OUTCOMES[move](fence)))
        known = self.holder(fence)
        if known is not None:
            known.task = MOVED[move](known.task, self.clock.now())
        assert written == (known.task.status if known is not None else None)

    @rule(max_crashes=st.integers(0, 2), limit=st.integers(1, 5))
    def reclaim(self, max_crashes: int, limit: int) -> None:
        now = self.clock.now()
        expired = [one for one in self.of(TaskStatus.RUNNING) if one.lease_until < now]
        reclaimed = self.run(self.store.reclaim(max_crashes, limit))
        assert len({one.fence for one in reclaimed}) == min(limit, len(expired))
        for one in reclaimed:
            known = self.holder(one.fence)
            assert known in expired
            known.task = known.task.worker_vanished(now, max_crashes)
            assert one.status is known.task.status

    @rule(routes=st.sampled_from(ROUTES))
    def reroute(self, routes: Routes) -> None:
        kept = {routes.fallback, *routes.by_model.values()}
        moved = [one for one in self.of(TaskStatus.PENDING) if one.task.executor not in kept]
        assert self.run(self.store.reroute(kept, routes)) == len(moved)
        for known in moved:
            known.task = known.task.routed(routes.executor_for(known.task.model))

    # --- time and accidents ----------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1, 7, 31, 100]))
    def tick(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(killed=WORKERS)
    def kill_worker(self, killed: str) -> None:
        """The leases of one worker run out while the other goes on renewing its own."""
        for _ in range(4):
            self.clock.advance(10)
            alive = [one for one in self.of(TaskStatus.RUNNING) if one.worker != killed]
            self.renew_these([Fence(one.task.id, one.task.attempt) for one in alive])

    @precondition(lambda self: self.kind.is_durable)
    @rule(come_back=st.sampled_from([Case.reopen, Case.crash]), monotonic=st.integers(0, 10_000))
    def open_anew(self, come_back: Any, monotonic: int) -> None:
        self.clock.restart_monotonic(monotonic)
        self.run(come_back(self.case))
        if not self.kind.is_shared:
            for known in self.of(TaskStatus.RUNNING):
                known.lease_until = EXPIRED

    # --- retention -------------------------------------------------------------------------------

    @rule(retention=RETENTIONS, limit=st.sampled_from([1, 3, 1_000]))
    def sweep(self, retention: RetentionPolicy, limit: int) -> None:
        removed = self.run(self.store.purge(retention, limit))
        assert removed == self.forget_removed(retention, 0, limit)

    def forget_removed(self, retention: RetentionPolicy, arriving: int, limit: int) -> int:
        """Check that the right tasks are gone from the store, and drop them from the model."""
        finished = {key: known.task for key, known in self.known.items() if known.task.done}
        cutoff = retention.finished_before(self.clock.now()) or 0
        expired = {key for key, task in finished.items() if (task.completed_at or 0) < cutoff}
        others = finished.keys() - expired
        gone = {key for key in finished if self.run(self.store.get(key, ANONYMOUS)) is None}

        assert len(gone & expired) == min(limit, len(expired))
        excess = retention.excess(len(self.known) - len(expired), arriving)
        assert len(gone & others) == min(limit - len(gone & expired), excess, len(others))
        youngest_gone = max((finished[key].created_at for key in gone & others), default=0)
        assert all(finished[key].created_at >= youngest_gone for key in others - gone)

        for key in gone:
            del self.known[key]
        return len(gone)

    # --- what always holds -----------------------------------------------------------------------

    @invariant()
    def every_task_is_as_the_model_says(self) -> None:
        for task_id, known in self.known.items():
            assert self.run(self.store.get(task_id, ANONYMOUS)) == known.task

    @invariant()
    def counts_are_those_of_the_tasks_that_are_there(self) -> None:
        counted = Counter(known.task.status.value for known in self.known.values())
        assert self.run(self.store.counts()) == TaskCounts(**counted)


def run(store: Any, examples: int, steps: int, phases: Collection[Phase] = tuple(Phase)) -> None:
    class Machine(StoreMachine):
        kind = store

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            phases=phases,
            deadline=None,
            print_blob=True,
        ),
    )


def test_a_store_holds_what_the_model_holds(kind: Any) -> None:
    to_fail_soon = [Phase.reuse, Phase.generate]  # the long form makes the example small
    run(kind, examples=30, steps=30, phases=to_fail_soon)


@pytest.mark.torture
@pytest.mark.timeout(1_800)
def test_a_store_holds_what_the_model_holds_at_length(kind: Any) -> None:
    run(kind, examples=400, steps=100)
