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
from msgspec.structs import replace

from adapters.testing.fakes import FakeClock
from adapters.testing.store_case import MOVED, OUTCOMES, Case, new_task
from domain.inference import Routes
from domain.instants import after
from domain.ports import (
    KEY_KEPT_SECONDS,
    PURGED_PER_SUBMIT,
    Accepted,
    Fence,
    Interruption,
    Mismatch,
    QueueFull,
    Replayed,
    Store,
    SubmitAnswer,
    SubmitLimits,
    TaskCounts,
)
from domain.query import TaskQuery
from domain.retention import RetentionPolicy
from domain.task import ANONYMOUS, Idempotency, Move, NewTask, Task, TaskStatus

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
ASKED = st.fixed_dictionaries(
    {
        "executor": st.sampled_from([*EXECUTORS, "gone"]),
        "head_start_seconds": st.sampled_from([0, 0, -60, 20]),
        "delay_seconds": st.sampled_from([None, None, 5, 40]),
        "deadline_seconds": st.sampled_from([None, None, 20, 150]),
        "idempotency": st.sampled_from(
            [None, None, Idempotency("a", b"1"), Idempotency("a", b"2"), Idempotency("b", b"1")]
        ),
    }
)
"""What a client may ask for beside a model."""


@dataclass
class Known:
    """What the model knows of a task. `number` is its place in the order of acceptance."""

    task: Task
    number: int
    input: bytes
    idempotency: Idempotency | None
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
        plain = [{"executor": executor} for executor in (*EXECUTORS, "gone")]
        self.submit(plain, None, 1_000, RetentionPolicy(0, 0))
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
        asked=st.lists(ASKED, min_size=1, max_size=4),
        model=st.sampled_from([None, "m"]),
        max_pending=st.sampled_from([3, 1_000]),
        retention=RETENTIONS,
    )
    def submit(
        self,
        asked: list[dict[str, Any]],
        model: str | None,
        max_pending: int,
        retention: RetentionPolicy,
    ) -> None:
        news = [new_task(model=model, **each) for each in asked]
        answers = self.run(self.store.submit(news, SubmitLimits(max_pending, retention)))
        self.forget_removed(retention, len(news), PURGED_PER_SUBMIT)
        for new, answer in zip(news, answers, strict=True):
            assert answer == self.answer_to(new, max_pending)

    def answer_to(self, new: NewTask, max_pending: int) -> SubmitAnswer:
        """What a submit is answered; an accepted task is known from then on."""
        before = self.of_same_key(new)
        if before is not None:
            is_same = before.idempotency == new.idempotency
            return Replayed(before.task) if is_same else Mismatch()
        pending = len(self.of(TaskStatus.PENDING))
        if pending >= max_pending:
            return QueueFull(pending)
        task = new.accepted(self.clock.now())
        self.accepted += 1
        self.known[new.id] = Known(task, self.accepted, new.input, new.idempotency)
        return Accepted(task)

    def of_same_key(self, new: NewTask) -> Known | None:
        if new.idempotency is None:
            return None
        for known in self.known.values():
            is_kept = after(known.task.created_at, KEY_KEPT_SECONDS) > self.clock.now()
            if is_kept and known.idempotency and known.idempotency.key == new.idempotency.key:
                return known
        return None

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        task_id = self.some_id(data)
        known = self.known.get(task_id)
        if known is not None:
            known.task = known.task.cancel_requested(self.clock.now())
        asked = self.run(self.store.request_cancel(task_id, ANONYMOUS))
        assert asked == (known.task if known is not None else None)

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        task_id = self.some_id(data)
        was_known = self.known.pop(task_id, None) is not None
        assert self.run(self.store.delete(task_id, ANONYMOUS)) == was_known
        assert self.run(self.store.get(task_id, ANONYMOUS)) is None

    def some_id(self, data: st.DataObject) -> str:
        """Mostly that of a task that is there."""
        drawn: str = data.draw(st.sampled_from([new_task().id, *self.known]))
        return drawn

    @rule(
        newest_first=st.booleans(),
        statuses=st.frozensets(st.sampled_from(TaskStatus), max_size=2),
        limit=st.sampled_from([1, 3, 100]),
    )
    def list_tasks(self, newest_first: bool, statuses: frozenset[TaskStatus], limit: int) -> None:
        query = TaskQuery(
            owner=None, statuses=statuses, newest_first=newest_first, limit=limit, with_result=True
        )
        matching = [known for known in self.known.values() if query.matches(known.task)]
        matching.sort(key=lambda known: known.number, reverse=newest_first)
        assert self.walk(query) == [known.task for known in matching]

    def walk(self, query: TaskQuery) -> list[Task]:
        page = self.run(self.store.find(query))
        found = [one.task for one in page.found]
        return found if page.next is None else found + self.walk(replace(query, start=page.next))

    @rule(executor=st.sampled_from(EXECUTORS))
    def look_at_the_queue(self, executor: str) -> None:
        pending, running = self.of(TaskStatus.PENDING), self.of(TaskStatus.RUNNING)
        lines = self.run(self.store.queue(ANONYMOUS)).lines
        assert sum(line.pending for line in lines) == len(pending)
        assert sum(line.running for line in lines) == len(running)
        if not any(one.task.overdue(self.clock.now()) for one in pending):  # else it may differ
            for place, known in enumerate(self.due(executor), 1):
                assert self.run(self.store.queue_position(known.task)) == place

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
            if known.task.executor == executor
            and known.task.due_at <= self.clock.now()
            and not known.task.overdue(self.clock.now())
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

    @rule(limit=st.sampled_from([1, 100]))
    def expire(self, limit: int) -> None:
        now = self.clock.now()
        overdue = [one for one in self.of(TaskStatus.PENDING) if one.task.overdue(now)]
        assert self.run(self.store.expire(limit)) == min(limit, len(overdue))
        standings = self.run(self.store.standings([one.task.id for one in overdue]))
        failed = [one for one in overdue if standings[one.task.id].done]
        assert len(failed) == min(limit, len(overdue))
        for known in failed:
            known.task = known.task.expired(now)

    @rule()
    def ask_for_interruptions(self) -> None:
        expected = {}
        for fence in self.fences:
            known = self.holder(fence)
            if known is None:
                expected[fence] = Interruption.LOST
            elif known.task.cancel_requested_at is not None:
                expected[fence] = Interruption.CANCEL
        assert self.run(self.store.interruptions(self.fences)) == expected

    @rule(routes=st.sampled_from(ROUTES))
    def reroute(self, routes: Routes) -> None:
        kept = {routes.fallback, *routes.by_model.values()}
        moved = [one for one in self.of(TaskStatus.PENDING) if one.task.executor not in kept]
        assert self.run(self.store.reroute(kept, routes)) == len(moved)
        for known in moved:
            known.task = known.task.routed(routes.executor_for(known.task.model))

    # --- time and accidents ----------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1, 7, 31, 100, 90_000]))
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
    run(kind, examples=100 if kind.is_shared else 400, steps=100)  # a server takes far longer
