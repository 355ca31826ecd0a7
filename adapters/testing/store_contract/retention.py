"""Which finished tasks are removed, and that no others are."""

import pytest

from adapters.testing.store_case import BUSY, ERROR, HOUR, LEASE, RESULT, USAGE, Case, ids, new_task
from adapters.testing.store_contract.base import Contract, on_event_loop
from domain.ports import Completed, Failed, Retry, TaskCounts
from domain.retention import RetentionPolicy
from domain.task import ANONYMOUS, Move


class Retention(Contract):
    """Which finished tasks are removed, and that no others are."""

    @pytest.mark.parametrize("move", [Move.COMPLETE, Move.FAIL, Move.GIVE_UP, Move.CANCEL])
    @on_event_loop
    async def test_a_finished_task_goes_when_it_is_older_than_the_retention_age(
        self, case: Case, move: Move
    ) -> None:
        [claim] = await case.start()
        case.clock.advance(2 * HOUR)
        await case.move(move, claim.fence)
        case.clock.advance(HOUR)
        assert await case.store.purge(RetentionPolicy(HOUR, max_tasks=0), limit=9) == 0
        case.clock.advance(0.001)
        assert await case.store.purge(RetentionPolicy(HOUR, max_tasks=0), limit=9) == 1
        assert await case.store.get(claim.task.id, ANONYMOUS) is None
        assert await case.store.counts() == TaskCounts()

    @on_event_loop
    async def test_what_exceeds_max_tasks_goes_the_oldest_by_creation_first(
        self, case: Case
    ) -> None:
        claims = []
        for _ in range(4):
            claims += await case.start()
            case.clock.advance(1)
        for claim in reversed(claims):
            await case.settle(Completed(claim.fence, RESULT, USAGE))
            case.clock.advance(1)
        assert await case.store.purge(RetentionPolicy(0, max_tasks=2), limit=9) == 2
        gone = [await case.store.get(task_id, ANONYMOUS) is None for task_id in ids(claims)]
        assert gone == [True, True, False, False]

    @on_event_loop
    async def test_expired_tasks_go_before_those_that_are_too_many(self, case: Case) -> None:
        older, younger = await case.start(new_task(), new_task())
        await case.settle(Completed(younger.fence, RESULT, USAGE))
        case.clock.advance(HOUR)
        await case.settle(Completed(older.fence, RESULT, USAGE))
        case.clock.advance(1)
        assert await case.store.purge(RetentionPolicy(HOUR, max_tasks=1), limit=9) == 1
        assert await case.store.get(younger.task.id, ANONYMOUS) is None
        assert (await case.task(older.task.id)).done

    @pytest.mark.parametrize("retention", [RetentionPolicy(HOUR, 0), RetentionPolicy(0, 1)])
    @on_event_loop
    async def test_a_live_task_is_never_purged(
        self, case: Case, retention: RetentionPolicy
    ) -> None:
        [running] = await case.start()
        [retried] = await case.start()
        await case.settle(Retry(retried.fence, BUSY, seconds=1))
        await case.finish()
        [pending] = await case.submit()
        case.clock.advance(1_000 * HOUR)
        assert await case.store.purge(retention, limit=9) == 1
        assert await case.task(pending.id) == pending
        assert await case.task(running.task.id) == running.task
        assert await case.store.counts() == TaskCounts(pending=2, running=1)

    @on_event_loop
    async def test_live_tasks_count_towards_max_tasks(self, case: Case) -> None:
        await case.finish(new_task(), new_task())
        await case.submit(new_task(), new_task())
        assert await case.store.purge(RetentionPolicy(0, max_tasks=3), limit=9) == 1
        assert await case.store.counts() == TaskCounts(pending=2, completed=1)

    @on_event_loop
    async def test_zero_means_that_a_rule_removes_nothing(self, case: Case) -> None:
        await case.finish(new_task(), new_task())
        case.clock.advance(1_000 * HOUR)
        assert await case.store.purge(RetentionPolicy(0, max_tasks=0), limit=9) == 0
        assert await case.store.counts() == TaskCounts(completed=2)

    @pytest.mark.parametrize("retention", [RetentionPolicy(1, 0), RetentionPolicy(0, 1)])
    @on_event_loop
    async def test_purge_removes_no_more_than_its_limit(
        self, case: Case, retention: RetentionPolicy
    ) -> None:
        await case.finish(*(new_task() for _ in range(6)))
        await case.submit()
        case.clock.advance(10)
        assert [await case.store.purge(retention, limit=4) for _ in range(3)] == [4, 2, 0]
        assert await case.store.counts() == TaskCounts(pending=1)

    @on_event_loop
    async def test_a_purged_task_is_gone_for_workers_too(self, case: Case) -> None:
        [claim] = await case.start()
        await case.settle(Completed(claim.fence, RESULT, USAGE))
        case.clock.advance(10)
        await case.store.purge(RetentionPolicy(1, 0), limit=9)
        assert not await case.settle(Failed(claim.fence, ERROR))
        assert await case.store.renew([claim.fence], LEASE) == set()
        assert await case.store.counts() == TaskCounts()
