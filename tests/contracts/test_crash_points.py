"""Whatever call to the store goes wrong, and however: nothing accepted is lost, one outcome each.

A fixed scenario runs once to count the calls it makes. Then it runs again for each of them, which
fails before it did anything, fails after its commit, or is the last thing that the process did.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import pytest

from adapters.testing.store_case import BUSY, ERROR, KEEP_ALL, NO_LIMITS, Case, new_task
from domain.errors import StoreUnavailable
from domain.ports import (
    Accepted,
    Cancelled,
    Claim,
    Completed,
    Failed,
    Fence,
    HandedBack,
    Interruption,
    Outcome,
    Replayed,
    Retry,
    Store,
)
from domain.query import TaskQuery
from domain.task import ANONYMOUS, DEADLINE_EXCEEDED, Idempotency, NewTask, Task, TaskStatus

T = TypeVar("T")

LEASE = 3.5
ROUNDS = 25
PLANS: dict[bytes, dict[str, float]] = {
    b'"cancel"': {},
    b'"complete"': {},
    b'"never start"': {"delay_seconds": 1_000},
    b'"retry"': {},
    b'"expire"': {"delay_seconds": 1_000, "deadline_seconds": 2},
    b'"fail"': {},
    b'"hand back"': {},
}
"""The input of each task, which says what shall become of it, and what else it asks for."""
STARTS = {b'"retry"': 2, b'"hand back"': 2, b'"never start"': 0, b'"expire"': 0}
FAILURES = {b'"retry"': 1, b'"fail"': 1}
EVERYTHING = TaskQuery(owner=ANONYMOUS, limit=100, with_result=True)
TO_CANCEL = {b'"cancel"', b'"never start"'}


class Killed(Exception):
    """The process ended here."""


class Fault(Enum):
    FAILS_BEFORE = "fails before it did anything"
    FAILS_AFTER = "fails after its commit"
    KILLED_BEFORE = "is never reached: the process is killed"
    KILLED_AFTER = "commits, and the process is killed before it returns"

    @property
    def error(self) -> Exception:
        is_kill = self in {Fault.KILLED_BEFORE, Fault.KILLED_AFTER}
        return Killed() if is_kill else StoreUnavailable(self.value)

    @property
    def takes_effect(self) -> bool:
        return self in {Fault.FAILS_AFTER, Fault.KILLED_AFTER}


class NumberedStore:
    """Passes calls on to a store and counts them; one of them goes wrong."""

    def __init__(self, store: Store, at: int, fault: Fault) -> None:
        self.store = store
        self.calls = 0
        self._at = at
        self._fault = fault

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def numbered(*arguments: Any) -> Any:
            self.calls += 1
            method = getattr(self.store, name)
            if self.calls != self._at:
                return await method(*arguments)
            if self._fault.takes_effect:
                await method(*arguments)
            raise self._fault.error

        return numbered


async def unless_unavailable(call: Awaitable[T], otherwise: T) -> T:
    try:
        return await call
    except StoreUnavailable:
        return otherwise


class Worker:
    """Does what workers do, one round at a time. Killed, it takes what it knew with it."""

    def __init__(self, store: NumberedStore, started: list[Fence]) -> None:
        self._store = store
        self._started = started
        self._held: dict[Fence, Claim] = {}
        self._unsent: list[Outcome] = []

    async def round(self) -> None:
        await unless_unavailable(self._store.reclaim(5, 10), [])
        await unless_unavailable(self._store.expire(10), 0)
        claims = await unless_unavailable(self._store.claim("w", {"echo": 2}, LEASE), [])
        self._held |= {claim.fence: claim for claim in claims}
        self._started += [claim.fence for claim in claims]
        await unless_unavailable(self._store.renew(list(self._held), LEASE), set())
        stop = await unless_unavailable(self._store.interruptions(list(self._held)), {})
        self._end({fence: outcome_of(claim, stop) for fence, claim in self._held.items()})
        if await unless_unavailable(self._store.settle(self._unsent), None) is not None:
            self._unsent.clear()
        await unless_unavailable(self._store.purge(KEEP_ALL, 10), 0)

    def _end(self, outcomes: Mapping[Fence, Outcome | None]) -> None:
        """These are to be told, where there is something to tell."""
        for fence, outcome in outcomes.items():
            if outcome is not None:
                self._unsent.append(outcome)
                del self._held[fence]


def outcome_of(claim: Claim, stop: Mapping[Fence, Interruption]) -> Outcome | None:
    """How the attempt ended; None: it goes on."""
    match claim.input:
        case b'"cancel"':
            return Cancelled(claim.fence) if claim.fence in stop else None
        case b'"fail"':
            return Failed(claim.fence, ERROR)
        case b'"retry"' if claim.task.failures == 0:
            return Retry(claim.fence, BUSY, seconds=1)
        case b'"hand back"' if claim.task.attempt == 1:
            return HandedBack(claim.fence)
    return Completed(claim.fence, b'{"output":%d}' % claim.task.attempt, None)


def task_of(plan: bytes) -> NewTask:
    return new_task(input=plan, idempotency=Idempotency(plan.decode(), b""), **PLANS[plan])


class Scenario:
    """A client that submits two tasks a round and cancels some, a worker, and one who looks on."""

    def __init__(self, case: Case, restart: Callable[[Case], Awaitable[None]]) -> None:
        self.case = case
        self.restart = restart
        self.accepted: dict[str, bytes] = {}
        self.cancelled: set[str] = set()
        self.started: list[Fence] = []
        self.seen_done: dict[str, Task] = {}

    async def play(self, at: int, fault: Fault) -> int:
        """Play it all, with the fault at this call, and tell how many calls there were."""
        store = NumberedStore(self.case.store, at, fault)
        worker = Worker(store, self.started)
        plans = list(PLANS)
        for _ in range(ROUNDS):
            try:
                await self.submit(store, plans)
                await worker.round()
                await self.cancel(store)
            except Killed:
                await self.restart(self.case)
                store.store = self.case.store
                worker = Worker(store, self.started)
            await self.look_at_everything()
            self.case.clock.advance(1)
            if not plans and len(self.seen_done) == len(PLANS):
                break
        return store.calls

    async def submit(self, store: NumberedStore, plans: list[bytes]) -> None:
        """Ask until it was answered, each under a key."""
        if not plans:
            return
        news = [task_of(plan) for plan in plans[:2]]
        for answer in await unless_unavailable(store.submit(news, NO_LIMITS), []):
            assert isinstance(answer, Accepted | Replayed)
            self.accepted[answer.task.id] = plans.pop(0)

    async def cancel(self, store: NumberedStore) -> None:
        """Ask until it was answered."""
        for task_id, plan in self.accepted.items():
            if plan in TO_CANCEL and task_id not in self.cancelled:
                call = store.request_cancel(task_id, ANONYMOUS)
                if await unless_unavailable(call, None) is not None:
                    self.cancelled.add(task_id)

    async def look_at_everything(self) -> None:
        page = await self.case.store.find(EVERYTHING)
        there = {one.task.id: one.task for one in page.found}
        assert self.accepted.keys() <= there.keys(), "an accepted task is lost"
        for task_id, task in there.items():
            if task.done:
                assert self.seen_done.setdefault(task_id, task) == task, "an outcome changed"

    async def check(self, extra_starts: int) -> None:
        assert self.seen_done.keys() == self.accepted.keys(), "a task never ended"
        assert len(self.started) == len(set(self.started)), "an attempt was given out twice"
        for task_id, plan in self.accepted.items():
            self.check_outcome(self.seen_done[task_id], plan, extra_starts)
        counts = await self.case.store.counts()
        assert counts.total == len(self.accepted) == len(PLANS), "a submit was done twice"

    def check_outcome(self, task: Task, plan: bytes, extra_starts: int) -> None:
        assert task.failures == FAILURES.get(plan, 0), "a failure counted twice, or not at all"
        starts = STARTS.get(plan, 1)
        assert task.attempt <= (starts + extra_starts if starts else 0)
        if plan in TO_CANCEL:
            assert (task.status, task.error, task.result) == (TaskStatus.CANCELLED, None, None)
        elif plan == b'"expire"':
            assert (task.status, task.error) == (TaskStatus.FAILED, DEADLINE_EXCEEDED)
        elif plan == b'"fail"':
            assert (task.status, task.error) == (TaskStatus.FAILED, ERROR)
        else:
            assert (task.status, task.error) == (TaskStatus.COMPLETED, None)
            assert task.result == b'{"output":%d}' % task.attempt


async def the_store_goes_on(_: Case) -> None:
    """Only the worker was killed; the store lives elsewhere."""


async def play(kind: Any, place: Path, at: int, fault: Fault) -> int:
    """Play it on a store of this `StoreKind`, and tell how many calls there were."""
    async with Case(kind.open_store, place) as case:
        scenario = Scenario(case, Case.crash if kind.is_durable else the_store_goes_on)
        calls = await scenario.play(at, fault)
        await scenario.check(extra_starts=1 if at else 0)
        return calls


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.torture)])
@pytest.mark.parametrize("fault", Fault)
def test_no_call_can_go_wrong_in_a_way_that_loses_a_task(
    kind: Any, fault: Fault, every: int, tmp_path: Path
) -> None:
    """The short form plays each fourth call where a scene takes long, others for each fault."""
    never = 0
    calls = asyncio.run(play(kind, tmp_path / "undisturbed", never, fault))
    step = every if kind.is_shared else 1
    first = 1 + list(Fault).index(fault) % step
    for at in range(first, calls + 1, step):
        try:
            asyncio.run(play(kind, tmp_path / str(at), at, fault))
        except AssertionError as error:
            error.add_note(f"call {at} of {calls} {fault.value}")
            raise
