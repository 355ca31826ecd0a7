"""Who holds a task, for how long, and what becomes of it when its worker vanished."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from adapters.testing.store_case import BUSY, LEASE, RESULT, USAGE, Case, ids, new_task
from adapters.testing.store_contract.base import Contract, on_event_loop
from domain.ports import Completed, Fence, HandedBack, Reclaimed, Retry
from domain.task import TaskStatus


class Leases(Contract):
    """Who holds a task, for how long, and what becomes of it when its worker vanished."""

    @on_event_loop
    async def test_a_lease_holds_for_its_seconds_and_then_no_more(self, case: Case) -> None:
        [claim] = await case.start()
        case.clock.advance(LEASE - 0.01)
        assert await case.store.reclaim(max_crashes=5, limit=9) == []
        case.clock.advance(0.02)
        assert await case.store.reclaim(max_crashes=5, limit=9) == [
            Reclaimed(claim.fence, TaskStatus.PENDING)
        ]

    @on_event_loop
    async def test_a_renewed_lease_counts_from_the_renewal(self, case: Case) -> None:
        [claim] = await case.start()
        case.clock.advance(20)
        assert await case.store.renew([claim.fence], LEASE) == {claim.fence}
        case.clock.advance(LEASE - 0.01)
        assert await case.store.reclaim(max_crashes=5, limit=9) == []
        case.clock.advance(0.02)
        assert len(await case.store.reclaim(max_crashes=5, limit=9)) == 1

    @on_event_loop
    async def test_renewal_changes_nothing_that_can_be_seen(self, case: Case) -> None:
        [claim] = await case.start()
        case.clock.advance(20)
        await case.store.renew([claim.fence], LEASE)
        assert await case.task(claim.task.id) == claim.task

    @on_event_loop
    async def test_an_expired_lease_that_nobody_reclaimed_is_renewed(self, case: Case) -> None:
        [claim] = await case.start()
        case.clock.advance(LEASE * 10)
        assert await case.store.renew([claim.fence], LEASE) == {claim.fence}
        assert await case.store.reclaim(max_crashes=5, limit=9) == []

    @on_event_loop
    async def test_renewal_tells_exactly_which_leases_hold(self, case: Case) -> None:
        kept, settled, _ = claims = await case.start(new_task(), new_task(), new_task())
        await case.settle(Completed(settled.fence, RESULT, USAGE))
        unknown = Fence(new_task().id, 1)
        fences = [unknown, *(claim.fence for claim in claims)]
        assert await case.store.renew(fences, LEASE) == {kept.fence, claims[2].fence}
        assert await case.store.renew([], LEASE) == set()

    @pytest.mark.parametrize("attempt", [0, 1, 3])
    @on_event_loop
    async def test_an_older_or_newer_attempt_renews_nothing(self, case: Case, attempt: int) -> None:
        [first] = await case.start()
        await case.settle(HandedBack(first.fence))
        [second] = await case.claim()
        case.clock.advance(LEASE - 1)
        assert await case.store.renew([Fence(second.task.id, attempt)], LEASE) == set()
        case.clock.advance(2)
        assert len(await case.store.reclaim(max_crashes=5, limit=9)) == 1

    @on_event_loop
    async def test_a_reclaimed_lease_is_lost_for_good(self, case: Case) -> None:
        [claim] = await case.start()
        await case.lose()
        assert await case.store.renew([claim.fence], LEASE) == set()
        assert not await case.settle(Completed(claim.fence, RESULT, USAGE))
        assert (await case.task(claim.task.id)).status is TaskStatus.PENDING

    @on_event_loop
    async def test_reclaim_takes_expired_leases_only(self, case: Case) -> None:
        [abandoned] = await case.start()
        case.clock.advance(LEASE / 2)
        [alive] = await case.start()
        case.clock.advance(LEASE / 2 + 1)
        reclaimed = await case.store.reclaim(max_crashes=5, limit=9)
        assert reclaimed == [Reclaimed(abandoned.fence, TaskStatus.PENDING)]
        assert await case.task(alive.task.id) == alive.task

    @on_event_loop
    async def test_reclaim_takes_no_more_than_its_limit(self, case: Case) -> None:
        await case.start(*(new_task() for _ in range(5)))
        case.clock.advance(LEASE + 1)
        batches = [await case.store.reclaim(max_crashes=5, limit=2) for _ in range(4)]
        assert [len(batch) for batch in batches] == [2, 2, 1, 0]
        assert len({one.fence for batch in batches for one in batch}) == 5

    @on_event_loop
    async def test_a_reclaimed_task_keeps_its_turn(self, case: Case) -> None:
        claims = await case.start(*(new_task() for _ in range(5)))
        await case.lose()
        [later] = await case.submit()
        assert ids(await case.claim(9)) == [*ids(claims), later.id]

    @on_event_loop
    async def test_a_task_survives_max_crashes_and_not_one_more(self, case: Case) -> None:
        [task] = await case.submit()
        for attempt in (1, 2):
            await case.claim()
            fence = Fence(task.id, attempt)
            assert await case.lose(max_crashes=2) == [Reclaimed(fence, TaskStatus.PENDING)]
        await case.claim()
        assert await case.lose(max_crashes=2) == [Reclaimed(Fence(task.id, 3), TaskStatus.FAILED)]
        lost = await case.task(task.id)
        assert lost.error is not None
        assert (lost.error.code, lost.crashes, lost.failures) == ("worker_lost", 3, 0)

    @on_event_loop
    async def test_failures_do_not_use_up_crashes(self, case: Case) -> None:
        [task] = await case.submit()
        for attempt in range(1, 6):
            [claim] = await case.claim()
            await case.settle(Retry(claim.fence, BUSY, seconds=0))
            assert (await case.task(task.id)).failures == attempt
        await case.claim()
        assert [one.status for one in await case.lose(max_crashes=1)] == [TaskStatus.PENDING]
        assert (await case.task(task.id)).crashes == 1

    @on_event_loop
    async def test_a_late_result_of_a_lost_task_changes_nothing(self, case: Case) -> None:
        [claim] = await case.start()
        await case.lose(max_crashes=0)
        lost = await case.task(claim.task.id)
        assert not await case.settle(Completed(claim.fence, RESULT, USAGE))
        assert await case.task(claim.task.id) == lost

    @on_event_loop
    async def test_of_renewal_and_reclaim_at_once_exactly_one_wins(self, case: Case) -> None:
        claims = await case.start(*(new_task() for _ in range(40)))
        case.clock.advance(LEASE + 1)
        renewals = [case.store.renew([claim.fence], LEASE) for claim in claims]
        takeovers = [case.store.reclaim(max_crashes=5, limit=3) for _ in range(20)]
        calls: list[Awaitable[Any]] = [
            call
            for pair in zip(renewals[::2], takeovers, renewals[1::2], strict=True)
            for call in pair
        ]
        answers = await asyncio.gather(*calls)
        renewed = {fence for found in answers if isinstance(found, set) for fence in found}
        taken = [one.fence for found in answers if isinstance(found, list) for one in found]
        assert renewed.isdisjoint(taken)
        assert sorted(ids(claims)) == sorted(fence.task_id for fence in [*renewed, *taken])
