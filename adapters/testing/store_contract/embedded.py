"""What holds for a store that lives in one process and goes by the clock it is given."""

import pytest
from msgspec.structs import replace

from adapters.testing.store_case import BUSY, HOUR, LEASE, RETRY_SECONDS, Case, ids, new_task
from adapters.testing.store_contract.base import Contract, on_event_loop
from adapters.testing.store_contract.listing import BOTH_ORDERS
from domain.ports import HandedBack, Retry
from domain.query import TaskQuery
from domain.retention import RetentionPolicy
from domain.task import ANONYMOUS


class Embedded(Contract):
    """What holds for a store that lives in one process and goes by the clock it is given."""

    @on_event_loop
    async def test_a_wall_clock_that_jumps_ahead_ends_no_lease(self, case: Case) -> None:
        await case.start()
        case.clock.jump(HOUR)
        case.clock.advance(LEASE - 1)
        assert await case.store.reclaim(max_crashes=5, limit=9) == []

    @on_event_loop
    async def test_a_wall_clock_that_jumps_back_prolongs_no_lease(self, case: Case) -> None:
        [claim] = await case.start()
        case.clock.jump(-HOUR)
        case.clock.advance(LEASE - 1)
        await case.store.renew([claim.fence], LEASE)
        case.clock.jump(-HOUR)
        case.clock.advance(LEASE + 1)
        assert len(await case.store.reclaim(max_crashes=5, limit=9)) == 1

    @on_event_loop
    async def test_creation_and_age_go_by_the_wall_clock(self, case: Case) -> None:
        case.clock.jump(-HOUR)
        [finished] = await case.finish()
        assert finished.created_at == finished.completed_at == case.clock.now()
        case.clock.jump(2 * HOUR)
        assert await case.store.purge(RetentionPolicy(HOUR, max_tasks=0), limit=9) == 1

    @on_event_loop
    async def test_a_wall_clock_that_jumps_back_holds_up_no_task_that_was_due(
        self, case: Case
    ) -> None:
        [before] = await case.submit()
        case.clock.jump(-HOUR)
        [after] = await case.submit()
        assert ids(await case.claim(2)) == [after.id, before.id]

    @on_event_loop
    async def test_a_wall_clock_that_jumps_back_holds_up_no_task_that_comes_back(
        self, case: Case
    ) -> None:
        handed_back, lost = await case.start(new_task(), new_task())
        case.clock.jump(-HOUR)
        await case.settle(HandedBack(handed_back.fence))
        await case.lose()
        assert ids(await case.claim(2)) == ids([handed_back, lost])

    @on_event_loop
    async def test_a_wall_clock_that_jumped_back_makes_no_retry_early(self, case: Case) -> None:
        [claim] = await case.start()
        case.clock.jump(-HOUR)
        await case.settle(Retry(claim.fence, BUSY, RETRY_SECONDS))
        case.clock.advance(RETRY_SECONDS - 0.001)
        assert await case.claim() == []
        case.clock.advance(0.001)
        assert ids(await case.claim()) == [claim.task.id]

    @on_event_loop
    async def test_a_wall_clock_that_jumps_back_turns_no_order_round(self, case: Case) -> None:
        [third, second] = await case.submit(new_task(), new_task(head_start_seconds=60))
        case.clock.jump(-HOUR)
        [first, last] = await case.submit(
            new_task(head_start_seconds=-60), new_task(head_start_seconds=-2 * HOUR)
        )
        for expected in (first, second, third, last):
            assert ids(await case.claim()) == [expected.id]

    @on_event_loop
    async def test_a_wall_clock_that_jumps_back_makes_no_wait_negative(self, case: Case) -> None:
        await case.submit()
        case.clock.jump(-HOUR)
        assert await case.store.backlog_seconds() == 0
        assert (await case.store.queue(ANONYMOUS)).oldest_pending_seconds in {None, 0}
        await case.submit()
        case.clock.advance(5)
        assert await case.store.backlog_seconds() == 5
        assert (await case.store.queue(ANONYMOUS)).oldest_pending_seconds == 5

    @BOTH_ORDERS
    @on_event_loop
    async def test_tasks_are_found_in_the_order_of_creation_whatever_the_clock_did(
        self, case: Case, newest_first: bool
    ) -> None:
        third, fourth = await case.submit(new_task(), new_task())
        case.clock.jump(-HOUR)
        first, second = await case.submit(new_task(), new_task())
        asked = TaskQuery(owner=ANONYMOUS, newest_first=newest_first, limit=3)
        page = await case.store.find(asked)
        rest = await case.store.find(replace(asked, start=page.next))
        found = ids([one.task for one in (*page.found, *rest.found)])
        expected = ids([first, second, third, fourth])
        assert found == (expected[::-1] if newest_first else expected)

    @pytest.mark.parametrize("monotonic", [0.0, 5_000.0, 1e9])
    @on_event_loop
    async def test_when_it_is_opened_every_lease_has_expired(
        self, case: Case, monotonic: float
    ) -> None:
        await case.start(new_task(), new_task())
        case.clock.restart_monotonic(monotonic)
        await case.crash()
        await case.store.reclaim(max_crashes=5, limit=9)
        assert (await case.store.counts()).running == 0
