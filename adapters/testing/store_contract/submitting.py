"""What becomes of a submit: stored whole, in order, within its limits."""

import asyncio

import pytest

from adapters.testing.store_case import BUSY, HOUR, KEEP_ALL, NO_LIMITS, Case, ids, new_task
from adapters.testing.store_contract.base import Contract, on_event_loop
from domain.instants import after
from domain.ports import PURGED_PER_SUBMIT, Accepted, QueueFull, Retry, SubmitLimits, TaskCounts
from domain.retention import RetentionPolicy
from domain.task import ANONYMOUS


class Submitting(Contract):
    """What becomes of a submit: stored whole, in order, within its limits."""

    @on_event_loop
    async def test_a_submitted_task_is_pending_created_and_due_now(self, case: Case) -> None:
        new = new_task(
            model="gpt-π", metadata={"käse": '"\n\\'}, timeout_seconds=0.25, max_attempts=10
        )
        assert await case.store.submit([new], NO_LIMITS) == [
            Accepted(new.accepted(case.clock.now()))
        ]
        assert await case.task(new.id) == new.accepted(case.clock.now())

    @on_event_loop
    async def test_a_task_is_stored_with_all_that_it_asks_for(self, case: Case) -> None:
        delayed = new_task(
            priority=-10, head_start_seconds=-600.5, delay_seconds=0.25, deadline_seconds=1e9
        )
        planned = new_task(
            priority=10, head_start_seconds=600, run_at=after(case.clock.now(), HOUR)
        )
        again = new_task(run_at=0, deadline_seconds=0.001, retry_of=delayed.id)
        await case.submit(delayed, planned, again)
        for new in (delayed, planned, again):
            assert await case.task(new.id) == new.accepted(case.clock.now())

    @on_event_loop
    async def test_each_new_task_gets_its_answer_in_order(self, case: Case) -> None:
        news = [new_task() for _ in range(20)]
        assert ids(await case.submit(*news)) == [new.id for new in news]

    @on_event_loop
    async def test_submitting_nothing_stores_nothing(self, case: Case) -> None:
        assert await case.store.submit([], NO_LIMITS) == []
        assert await case.store.counts() == TaskCounts()

    @on_event_loop
    async def test_a_task_beyond_max_pending_is_refused_and_not_stored(self, case: Case) -> None:
        limits = SubmitLimits(max_pending=2, retention=KEEP_ALL)
        news = [new_task() for _ in range(4)]
        answers = await case.store.submit(news, limits)
        now = case.clock.now()
        assert answers[:2] == [Accepted(new.accepted(now)) for new in news[:2]]
        assert answers[2:] == [QueueFull(pending=2)] * 2
        assert await case.store.get(news[2].id, ANONYMOUS) is None
        assert await case.store.counts() == TaskCounts(pending=2)

    @on_event_loop
    async def test_only_pending_tasks_count_against_max_pending(self, case: Case) -> None:
        limits = SubmitLimits(max_pending=1, retention=KEEP_ALL)
        await case.start(new_task(), new_task())
        await case.finish()
        [answer] = await case.store.submit([new_task()], limits)
        assert isinstance(answer, Accepted)

    @on_event_loop
    async def test_a_retried_task_counts_against_max_pending(self, case: Case) -> None:
        limits = SubmitLimits(max_pending=1, retention=KEEP_ALL)
        [claim] = await case.start()
        await case.settle(Retry(claim.fence, BUSY, seconds=60))
        assert await case.store.submit([new_task()], limits) == [QueueFull(pending=1)]

    @on_event_loop
    async def test_a_task_that_waits_for_its_time_counts_against_max_pending(
        self, case: Case
    ) -> None:
        limits = SubmitLimits(max_pending=1, retention=KEEP_ALL)
        await case.submit(new_task(delay_seconds=60))
        assert await case.store.submit([new_task()], limits) == [QueueFull(pending=1)]

    @on_event_loop
    async def test_concurrent_submits_keep_to_max_pending_exactly(self, case: Case) -> None:
        limits = SubmitLimits(max_pending=50, retention=KEEP_ALL)
        answers = await asyncio.gather(
            *(case.store.submit([new_task(), new_task()], limits) for _ in range(100))
        )
        accepted = [answer for pair in answers for answer in pair if isinstance(answer, Accepted)]
        assert len(accepted) == 50
        assert await case.store.counts() == TaskCounts(pending=50)

    @pytest.mark.parametrize("loop_turns", range(4))
    @on_event_loop
    async def test_a_cancelled_submit_happens_whole_or_not_at_all(
        self, case: Case, loop_turns: int
    ) -> None:
        news = [new_task() for _ in range(5)]
        under_way = asyncio.create_task(case.submit(*news))
        for _ in range(loop_turns):
            await asyncio.sleep(0)
        under_way.cancel()
        await asyncio.wait([under_way])
        await case.submit()
        assert (await case.store.counts()).total in {1, 6}

    @on_event_loop
    async def test_submit_makes_room_before_it_stores(self, case: Case) -> None:
        limits = SubmitLimits(max_pending=9, retention=RetentionPolicy(0, max_tasks=2))
        oldest, newer = await case.finish(new_task(), new_task())
        await case.store.submit([new_task()], limits)
        assert await case.store.get(oldest.id, ANONYMOUS) is None
        assert await case.task(newer.id) == newer
        assert await case.store.counts() == TaskCounts(pending=1, completed=1)

    @on_event_loop
    async def test_submit_removes_what_is_too_old(self, case: Case) -> None:
        limits = SubmitLimits(max_pending=9, retention=RetentionPolicy(HOUR, max_tasks=0))
        await case.finish()
        case.clock.advance(HOUR + 1)
        await case.store.submit([new_task()], limits)
        assert await case.store.counts() == TaskCounts(pending=1)

    @pytest.mark.parametrize("retention", [RetentionPolicy(1, 0), RetentionPolicy(0, 1)])
    @on_event_loop
    async def test_submit_removes_a_bounded_number_of_tasks(
        self, case: Case, retention: RetentionPolicy
    ) -> None:
        await case.finish(*(new_task() for _ in range(PURGED_PER_SUBMIT + 20)))
        case.clock.advance(10)
        await case.store.submit([new_task()], SubmitLimits(9, retention))
        assert await case.store.counts() == TaskCounts(pending=1, completed=20)

    @on_event_loop
    async def test_a_submit_is_never_refused_for_max_tasks(self, case: Case) -> None:
        limits = SubmitLimits(max_pending=9, retention=RetentionPolicy(HOUR, max_tasks=1))
        await case.start(new_task(), new_task())
        [answer] = await case.store.submit([new_task()], limits)
        assert isinstance(answer, Accepted)
        assert await case.store.counts() == TaskCounts(pending=1, running=2)

    @on_event_loop
    async def test_check_passes_on_a_healthy_store_and_leaves_nothing(self, case: Case) -> None:
        await case.submit()
        await case.store.check()
        assert await case.store.counts() == TaskCounts(pending=1)
