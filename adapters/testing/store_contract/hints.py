"""Who listens is told."""

import asyncio
from collections import Counter
from collections.abc import Collection
from typing import Final

import pytest

from adapters.testing.store_case import PATIENCE, Case, new_task
from adapters.testing.store_contract.base import Contract, on_event_loop
from domain.events import Output
from domain.inference import Routes
from domain.ports import WATCHED_SECONDS, Entry
from domain.task import ANONYMOUS, TERMINAL, TRANSITIONS, Move, TaskStatus

ENDS: Final = [pair for pair, status in TRANSITIONS.items() if status in TERMINAL]


class Told(asyncio.Event):
    """Set once this task is among those that ended."""

    def __init__(self, task_id: str) -> None:
        super().__init__()
        self._task_id = task_id

    def listen(self, task_ids: Collection[str]) -> None:
        """What `on_end` is given."""
        if self._task_id in task_ids:
            self.set()


class Hints(Contract):
    """Who listens is told."""

    @pytest.mark.parametrize("move", [None, Move.RETRY, Move.HAND_BACK, Move.LOSE_WORKER])
    @on_event_loop
    async def test_a_listener_is_told_whenever_a_task_becomes_pending(
        self, case: Case, move: Move | None
    ) -> None:
        claims = await case.start()
        told = asyncio.Event()
        case.store.on_work(told.set)
        if move is None:
            await case.submit()
        else:
            assert await case.move(move, claims[0].fence)
        await asyncio.wait_for(told.wait(), PATIENCE)

    @on_event_loop
    async def test_a_listener_is_told_of_rerouted_tasks(self, case: Case) -> None:
        await case.submit(new_task(executor="gone"))
        told = asyncio.Event()
        case.store.on_work(told.set)
        await case.store.reroute(["echo"], Routes({}, fallback="echo"))
        await asyncio.wait_for(told.wait(), PATIENCE)

    @pytest.mark.parametrize("end_it", ["cancel", "delete"])
    @on_event_loop
    async def test_a_listener_is_told_that_a_running_task_is_to_be_stopped(
        self, case: Case, end_it: str
    ) -> None:
        [claim] = await case.start()
        told = asyncio.Event()
        case.store.on_cancel(told.set)
        if end_it == "cancel":
            await case.store.request_cancel(claim.task.id, ANONYMOUS)
        else:
            await case.store.delete(claim.task.id, ANONYMOUS)
        await asyncio.wait_for(told.wait(), PATIENCE)

    @pytest.mark.parametrize(("status", "move"), ENDS)
    @on_event_loop
    async def test_a_listener_is_told_which_task_ended(
        self, case: Case, status: TaskStatus, move: Move
    ) -> None:
        task, fence = await case.in_status(status)
        told = Told(task.id)
        case.store.on_end(told.listen)
        assert await case.move(move, fence)
        await asyncio.wait_for(told.wait(), PATIENCE)

    @pytest.mark.parametrize("move", [Move.HAND_BACK, Move.LOSE_WORKER])
    @on_event_loop
    async def test_a_listener_is_told_of_a_task_that_ends_because_it_was_cancelled(
        self, case: Case, move: Move
    ) -> None:
        task, fence = await case.in_status(TaskStatus.RUNNING)
        told = Told(task.id)
        case.store.on_end(told.listen)
        await case.store.request_cancel(task.id, ANONYMOUS)
        assert await case.move(move, fence)
        await asyncio.wait_for(told.wait(), PATIENCE)

    @pytest.mark.parametrize("status", [TaskStatus.PENDING, TaskStatus.RUNNING])
    @on_event_loop
    async def test_a_listener_is_told_which_task_was_deleted(
        self, case: Case, status: TaskStatus
    ) -> None:
        task, _ = await case.in_status(status)
        told = Told(task.id)
        case.store.on_end(told.listen)
        await case.store.delete(task.id, ANONYMOUS)
        await asyncio.wait_for(told.wait(), PATIENCE)

    # --- who watches -----------------------------------------------------------------------------

    @on_event_loop
    async def test_a_task_is_watched_for_a_while_from_when_somebody_says_so(
        self, case: Case
    ) -> None:
        watched, other = await case.submit(new_task(), new_task())
        assert not case.store.is_watched(watched.id)
        told = asyncio.Event()
        case.store.on_watch(told.set)
        case.store.watch([watched.id])
        await asyncio.wait_for(told.wait(), PATIENCE)
        assert case.store.is_watched(watched.id)
        assert not case.store.is_watched(other.id)
        case.clock.advance(WATCHED_SECONDS - 0.1)
        assert case.store.is_watched(watched.id)
        case.store.watch([other.id])
        case.clock.advance(0.1)
        assert not case.store.is_watched(watched.id)
        assert case.store.is_watched(other.id)

    @pytest.mark.parametrize("what", ["claim", "append", Move.RETRY, Move.HAND_BACK])
    @on_event_loop
    async def test_who_watches_a_task_is_told_what_happens_to_it(
        self, case: Case, what: str
    ) -> None:
        [task] = await case.submit()
        [claim] = [None] if what == "claim" else await case.claim()
        case.store.watch([task.id])
        told = Told(task.id)
        case.store.on_events(told.listen)
        if claim is None:
            await case.claim()
        elif isinstance(what, Move):
            assert await case.move(what, claim.fence)
        else:
            await case.store.append([Entry(claim.fence, 0, [Output("a", 0, 1, 1)])])
        await asyncio.wait_for(told.wait(), PATIENCE)

    @on_event_loop
    async def test_nobody_is_told_of_what_nobody_watches(self, case: Case) -> None:
        watched, ignored = await case.submit(new_task(), new_task())
        case.store.watch([watched.id])
        told: Counter[str] = Counter()
        case.store.on_events(told.update)
        seen = Told(watched.id)
        case.store.on_events(seen.listen)
        claims = await case.claim(2)
        await case.store.append([Entry(one.fence, 0, [Output("a", 0, 1, 1)]) for one in claims])
        await asyncio.wait_for(seen.wait(), PATIENCE)
        assert ignored.id not in told

    @on_event_loop
    async def test_a_listener_that_was_ended_is_told_no_more(self, case: Case) -> None:
        ended, kept = Counter[str](), asyncio.Event()
        hints = [
            case.store.on_work(lambda: ended.update(["work"])),
            case.store.on_cancel(lambda: ended.update(["cancel"])),
            case.store.on_end(ended.update),
        ]
        for end in hints:
            end()
        case.store.on_end(lambda _: kept.set())
        [claim] = await case.start()
        await case.store.request_cancel(claim.task.id, ANONYMOUS)
        await case.store.delete(claim.task.id, ANONYMOUS)
        await asyncio.wait_for(kept.wait(), PATIENCE)
        assert not ended
