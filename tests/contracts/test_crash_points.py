"""Whatever call to the store goes wrong, and however: nothing accepted is lost, one outcome each.

A fixed scenario runs once to count the calls it makes. Then it runs again for each of them, which
fails before it did anything, fails after its commit, or is the last thing that the process did.
"""

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import pytest

from adapters.testing.store_case import BUSY, ERROR, KEEP_ALL, NO_LIMITS, Case, new_task
from domain.errors import StoreUnavailable
from domain.ports import (
    Accepted,
    Claim,
    Completed,
    Failed,
    Fence,
    HandedBack,
    Outcome,
    Retry,
    Store,
)
from domain.task import ANONYMOUS, Task, TaskStatus

T = TypeVar("T")

LEASE = 3.5
ROUNDS = 25
PLANS = [b'"complete"', b'"retry"', b'"fail"', b'"hand back"', b'"complete"', b'"complete"']
FAILURES = {b'"retry"': 1, b'"fail"': 1}


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
        claims = await unless_unavailable(self._store.claim("w", {"echo": 2}, LEASE), [])
        self._held |= {claim.fence: claim for claim in claims}
        self._started += [claim.fence for claim in claims]
        await unless_unavailable(self._store.renew(list(self._held), LEASE), set())
        self._unsent += [outcome_of(claim) for claim in self._held.values()]
        self._held.clear()
        if await unless_unavailable(self._store.settle(self._unsent), None) is not None:
            self._unsent.clear()
        await unless_unavailable(self._store.purge(KEEP_ALL, 10), 0)


def outcome_of(claim: Claim) -> Outcome:
    match claim.input:
        case b'"fail"':
            return Failed(claim.fence, ERROR)
        case b'"retry"' if claim.task.failures == 0:
            return Retry(claim.fence, BUSY, seconds=1)
        case b'"hand back"' if claim.task.attempt == 1:
            return HandedBack(claim.fence)
    return Completed(claim.fence, b'{"output":%d}' % claim.task.attempt, None)


class Scenario:
    """A client that submits one task a round, a worker, and somebody who looks on."""

    def __init__(self, case: Case, restart: Callable[[Case], Awaitable[None]]) -> None:
        self.case = case
        self.restart = restart
        self.accepted: dict[str, bytes] = {}
        self.started: list[Fence] = []
        self.seen_done: dict[str, Task] = {}

    async def play(self, at: int, fault: Fault) -> int:
        """Play it all, with the fault at this call, and tell how many calls there were."""
        store = NumberedStore(self.case.store, at, fault)
        worker = Worker(store, self.started)
        plans = PLANS.copy()
        for _ in range(ROUNDS):
            try:
                await self.submit(store, plans)
                await worker.round()
            except Killed:
                await self.restart(self.case)
                store.store = self.case.store
                worker = Worker(store, self.started)
            await self.look_at_everything()
            self.case.clock.advance(1)
            if await self.is_over(plans):
                break
        return store.calls

    async def submit(self, store: NumberedStore, plans: list[bytes]) -> None:
        if not plans:
            return
        new = new_task(input=plans.pop(0))
        for answer in await unless_unavailable(store.submit([new], NO_LIMITS), []):
            assert isinstance(answer, Accepted)
            self.accepted[new.id] = new.input

    async def is_over(self, plans: list[bytes]) -> bool:
        counts = await self.case.store.counts()
        return not plans and counts.pending + counts.running == 0

    async def look_at_everything(self) -> None:
        for task_id in self.accepted:
            task = await self.case.store.get(task_id, ANONYMOUS)
            assert task is not None, "an accepted task is lost"
            if task.done:
                assert self.seen_done.setdefault(task_id, task) == task, "an outcome changed"

    async def check(self, extra_starts: int) -> None:
        assert self.seen_done.keys() == self.accepted.keys(), "a task never ended"
        assert len(self.started) == len(set(self.started)), "an attempt was given out twice"
        for task_id, plan in self.accepted.items():
            self.check_outcome(self.seen_done[task_id], plan, extra_starts)
        counts = await self.case.store.counts()
        assert counts.total - len(self.accepted) in {0, 1}, "a submit left more than one task"
        assert counts.completed + counts.failed == counts.total

    def check_outcome(self, task: Task, plan: bytes, extra_starts: int) -> None:
        assert task.failures == FAILURES.get(plan, 0), "a failure counted twice, or not at all"
        planned = 2 if plan in {b'"retry"', b'"hand back"'} else 1
        assert task.attempt <= planned + extra_starts
        if plan == b'"fail"':
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


@pytest.mark.parametrize("fault", Fault)
def test_no_call_can_go_wrong_in_a_way_that_loses_a_task(
    kind: Any, fault: Fault, tmp_path: Path
) -> None:
    never = 0
    calls = asyncio.run(play(kind, tmp_path / "undisturbed", never, fault))
    for at in range(1, calls + 1):
        try:
            asyncio.run(play(kind, tmp_path / str(at), at, fault))
        except AssertionError as error:
            error.add_note(f"call {at} of {calls} {fault.value}")
            raise
