"""Tasks that must have ended by a certain moment."""

import pytest

from adapters.testing.store_case import Case, ids, new_task
from adapters.testing.store_contract.base import Contract, on_event_loop
from domain.ports import HandedBack, TaskCounts
from domain.task import ANONYMOUS, Move, TaskStatus


class Deadlines(Contract):
    """Tasks that must have ended by a certain moment."""

    @pytest.mark.parametrize(("passed", "claimed"), [(9.999, 1), (10.0, 0)])
    @on_event_loop
    async def test_a_task_past_its_deadline_never_starts(
        self, case: Case, passed: float, claimed: int
    ) -> None:
        await case.submit(new_task(deadline_seconds=10))
        case.clock.advance(passed)
        assert len(await case.claim()) == claimed

    @on_event_loop
    async def test_a_task_past_its_deadline_holds_up_no_other(self, case: Case) -> None:
        await case.submit(*(new_task(deadline_seconds=10) for _ in range(20)))
        case.clock.advance(10)
        [behind] = await case.submit()
        assert ids(await case.claim()) == [behind.id]

    @pytest.mark.parametrize("delay_seconds", [None, 60])
    @on_event_loop
    async def test_a_pending_task_fails_when_its_deadline_passes_due_or_not(
        self, case: Case, delay_seconds: float | None
    ) -> None:
        [task] = await case.submit(new_task(deadline_seconds=10, delay_seconds=delay_seconds))
        case.clock.advance(9.999)
        assert await case.store.expire(limit=9) == 0
        assert await case.task(task.id) == task
        case.clock.advance(0.001)
        assert await case.store.expire(limit=9) == 1
        assert await case.task(task.id) == task.expired(case.clock.now())
        assert await case.store.counts() == TaskCounts(failed=1)

    @on_event_loop
    async def test_a_claim_in_between_saves_no_task_from_its_deadline(self, case: Case) -> None:
        await case.submit(new_task(deadline_seconds=10))
        case.clock.advance(10)
        await case.claim()
        assert await case.store.expire(limit=9) == 1

    @pytest.mark.parametrize("move", [Move.RETRY, Move.HAND_BACK, Move.LOSE_WORKER])
    @on_event_loop
    async def test_a_running_task_fails_by_its_deadline_once_it_is_pending_again(
        self, case: Case, move: Move
    ) -> None:
        [claim] = await case.start(new_task(deadline_seconds=10))
        case.clock.advance(10)
        assert await case.store.expire(limit=9) == 0
        await case.move(move, claim.fence)
        assert await case.store.expire(limit=9) == 1
        failed = await case.task(claim.task.id)
        assert failed.error is not None
        assert failed.error.code == "deadline_exceeded"
        assert [one.number for one in failed.attempts] == [1]

    @on_event_loop
    async def test_what_ended_or_was_deleted_does_not_expire(self, case: Case) -> None:
        news = [new_task(deadline_seconds=10) for _ in range(3)]
        await case.finish(news.pop())
        cancelled, deleted = await case.submit(*news)
        await case.store.request_cancel(cancelled.id, ANONYMOUS)
        await case.store.delete(deleted.id, ANONYMOUS)
        case.clock.advance(10)
        assert await case.store.expire(limit=9) == 0
        assert (await case.task(cancelled.id)).status is TaskStatus.CANCELLED

    @on_event_loop
    async def test_expire_fails_no_more_than_its_limit(self, case: Case) -> None:
        [running] = await case.start(new_task(deadline_seconds=1))
        await case.submit(*(new_task(deadline_seconds=n) for n in (5, 2, 4, 3, 99)))
        case.clock.advance(5)
        assert [await case.store.expire(limit=2) for _ in range(3)] == [2, 2, 0]
        assert await case.store.counts() == TaskCounts(pending=1, running=1, failed=4)
        await case.settle(HandedBack(running.fence))
        assert await case.store.expire(limit=2) == 1
