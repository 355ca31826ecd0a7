"""A task moves as `TRANSITIONS` says, and in no other way."""

from typing import Final

import pytest

from adapters.testing.store_case import MOVED, REACHABLE, Case
from adapters.testing.store_contract.base import Contract, on_event_loop
from domain.ports import TaskCounts
from domain.task import ANONYMOUS, TRANSITIONS, Move, TaskStatus

REFUSED: Final = [
    (status, move) for status in REACHABLE for move in Move if (status, move) not in TRANSITIONS
]
ENDS_OF_ATTEMPTS: Final = [move for status, move in TRANSITIONS if status is TaskStatus.RUNNING]


class Moves(Contract):
    """A task moves as `TRANSITIONS` says, and in no other way."""

    @pytest.mark.parametrize(("status", "move"), TRANSITIONS)
    @on_event_loop
    async def test_an_allowed_move_changes_exactly_what_the_domain_says(
        self, case: Case, status: TaskStatus, move: Move
    ) -> None:
        task, fence = await case.in_status(status)
        case.clock.advance(1)
        assert await case.move(move, fence)
        moved = MOVED[move](task, case.clock.now())
        assert await case.task(task.id) == moved
        assert await case.store.counts() == TaskCounts(**{moved.status: 1})

    @pytest.mark.parametrize(("status", "move"), REFUSED)
    @on_event_loop
    async def test_any_other_move_changes_nothing(
        self, case: Case, status: TaskStatus, move: Move
    ) -> None:
        task, fence = await case.in_status(status)
        case.clock.advance(1)
        assert not await case.move(move, fence)
        assert await case.task(task.id) == task
        assert await case.store.counts() == TaskCounts(**{status: 1})

    @pytest.mark.parametrize("move", ENDS_OF_ATTEMPTS)
    @on_event_loop
    async def test_once_it_was_to_be_cancelled_every_end_of_an_attempt_cancels_the_task(
        self, case: Case, move: Move
    ) -> None:
        task, fence = await case.in_status(TaskStatus.RUNNING)
        requested = task.cancel_requested(case.clock.now())
        assert await case.store.request_cancel(task.id, ANONYMOUS) == requested
        case.clock.advance(1)
        assert await case.move(move, fence)
        cancelled = MOVED[move](requested, case.clock.now())
        assert cancelled.status is TaskStatus.CANCELLED
        assert await case.task(task.id) == cancelled
        assert await case.store.counts() == TaskCounts(cancelled=1)
