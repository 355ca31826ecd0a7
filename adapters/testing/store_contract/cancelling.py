"""Clients that want no result any more: cancel, delete, and how workers hear of it."""

import asyncio

import pytest

from adapters.testing.store_case import (
    KEEP_ALL,
    LEASE,
    OUTCOMES,
    REACHABLE,
    RESULT,
    USAGE,
    Case,
    ids,
    new_task,
)
from adapters.testing.store_contract.base import Contract, on_event_loop
from domain.ports import (
    Accepted,
    Completed,
    Fence,
    HandedBack,
    Interruption,
    Reclaimed,
    SubmitLimits,
    TaskCounts,
)
from domain.task import ANONYMOUS, Task, TaskStatus


class Cancelling(Contract):
    """What clients do to a task of which nothing shall come."""

    # --- cancel ----------------------------------------------------------------------------------

    @pytest.mark.parametrize("delay_seconds", [None, 60])
    @on_event_loop
    async def test_a_pending_task_is_cancelled_at_once_and_never_starts(
        self, case: Case, delay_seconds: float | None
    ) -> None:
        [task] = await case.submit(new_task(delay_seconds=delay_seconds))
        case.clock.advance(1)
        cancelled = task.cancelled(case.clock.now())
        assert await case.store.request_cancel(task.id, ANONYMOUS) == cancelled
        case.clock.advance(60)
        assert await case.claim() == []
        assert await case.task(task.id) == cancelled

    @on_event_loop
    async def test_a_running_task_runs_on_until_its_worker_lets_go(self, case: Case) -> None:
        [claim] = await case.start()
        case.clock.advance(1)
        requested = claim.task.cancel_requested(case.clock.now())
        assert await case.store.request_cancel(claim.task.id, ANONYMOUS) == requested
        assert await case.store.renew([claim.fence], LEASE) == {claim.fence}
        assert await case.task(claim.task.id) == requested
        assert await case.store.counts() == TaskCounts(running=1)

    @pytest.mark.parametrize("status", REACHABLE)
    @on_event_loop
    async def test_to_ask_again_or_too_late_changes_nothing(
        self, case: Case, status: TaskStatus
    ) -> None:
        task, _ = await case.in_status(status)
        asked = await case.store.request_cancel(task.id, ANONYMOUS)
        assert asked == task.cancel_requested(case.clock.now())
        case.clock.advance(1)
        assert await case.store.request_cancel(task.id, ANONYMOUS) == asked
        assert await case.task(task.id) == asked

    @on_event_loop
    async def test_a_worker_is_told_that_its_outcome_was_dropped(self, case: Case) -> None:
        claims = await case.start(*(new_task() for _ in OUTCOMES))
        for claim in claims:
            await case.store.request_cancel(claim.task.id, ANONYMOUS)
        outcomes = [
            make(claim.fence) for make, claim in zip(OUTCOMES.values(), claims, strict=True)
        ]
        assert await case.store.settle(outcomes) == [TaskStatus.CANCELLED] * len(outcomes)
        for claim in claims:
            task = await case.task(claim.task.id)
            assert (task.result, task.usage, task.error, task.failures) == (None, None, None, 0)

    @on_event_loop
    async def test_a_worker_that_vanished_is_not_waited_for(self, case: Case) -> None:
        [claim] = await case.start()
        await case.store.request_cancel(claim.task.id, ANONYMOUS)
        assert await case.lose() == [Reclaimed(claim.fence, TaskStatus.CANCELLED)]
        assert (await case.task(claim.task.id)).crashes == 1

    @on_event_loop
    async def test_a_request_stands_until_the_attempt_ends_however_late(self, case: Case) -> None:
        [claim] = await case.start()
        await case.store.request_cancel(claim.task.id, ANONYMOUS)
        case.clock.advance(LEASE * 10)
        assert await case.settle(Completed(claim.fence, RESULT, USAGE)) is TaskStatus.CANCELLED

    @on_event_loop
    async def test_nobody_cancels_the_tasks_of_others(self, case: Case) -> None:
        [task] = await case.submit(new_task(owner="alice"))
        for stranger in ("bob", "", ANONYMOUS):
            assert await case.store.request_cancel(task.id, stranger) is None
            assert not await case.store.delete(task.id, stranger)
        assert await case.store.get(task.id, "alice") == task

    @on_event_loop
    async def test_without_an_owner_anybodys_task_is_cancelled_or_deleted(self, case: Case) -> None:
        task, other = await case.submit(new_task(owner="alice"), new_task(owner="bob"))
        assert await case.store.request_cancel(task.id, None) == task.cancelled(case.clock.now())
        assert await case.store.delete(other.id, None)
        assert await case.store.counts() == TaskCounts(cancelled=1)

    @on_event_loop
    async def test_a_cancelled_or_deleted_task_leaves_its_room_to_others(self, case: Case) -> None:
        limits = SubmitLimits(max_pending=2, retention=KEEP_ALL)
        cancelled, deleted = await case.submit(new_task(), new_task())
        await case.store.request_cancel(cancelled.id, ANONYMOUS)
        await case.store.delete(deleted.id, ANONYMOUS)
        answers = await case.store.submit([new_task(), new_task()], limits)
        assert [type(answer) for answer in answers] == [Accepted, Accepted]

    @on_event_loop
    async def test_of_a_cancel_and_a_result_at_once_the_first_counts(self, case: Case) -> None:
        claims = await case.start(*(new_task() for _ in range(20)))

        async def race(fence: Fence) -> tuple[TaskStatus | None, TaskStatus]:
            result = case.settle(Completed(fence, RESULT, USAGE))
            _, told = await asyncio.gather(
                case.store.request_cancel(fence.task_id, ANONYMOUS), result
            )
            return told, (await case.task(fence.task_id)).status

        for told, seen in await asyncio.gather(*(race(claim.fence) for claim in claims)):
            assert told is seen
            assert seen in {TaskStatus.COMPLETED, TaskStatus.CANCELLED}

    @on_event_loop
    async def test_of_a_cancel_and_a_claim_at_once_the_first_counts(self, case: Case) -> None:
        tasks = await case.submit(*(new_task() for _ in range(20)))
        claimed: set[str] = set()

        async def race(task: Task) -> None:
            cancel = case.store.request_cancel(task.id, ANONYMOUS)
            found, _ = await asyncio.gather(case.claim(), cancel)
            claimed.update(ids(found))

        await asyncio.gather(*map(race, tasks))
        for task in tasks:
            now = await case.task(task.id)
            assert now.cancel_requested_at is not None
            assert (now.status is TaskStatus.RUNNING) == (task.id in claimed)

    # --- delete ----------------------------------------------------------------------------------

    @pytest.mark.parametrize("status", REACHABLE)
    @on_event_loop
    async def test_a_deleted_task_is_gone_at_once_whatever_its_state(
        self, case: Case, status: TaskStatus
    ) -> None:
        task, fence = await case.in_status(status)
        assert await case.store.delete(task.id, ANONYMOUS)
        assert await case.store.get(task.id, ANONYMOUS) is None
        assert await case.store.payload(task.id, ANONYMOUS) is None
        assert await case.store.counts() == TaskCounts()
        assert not await case.store.delete(task.id, ANONYMOUS)
        assert await case.settle(Completed(fence, RESULT, USAGE)) is None
        assert await case.store.renew([fence], LEASE) == set()

    @on_event_loop
    async def test_nothing_is_left_of_deleted_tasks_for_others_to_stumble_over(
        self, case: Case
    ) -> None:
        now, soon, running, kept = await case.submit(
            new_task(), new_task(delay_seconds=5), new_task(head_start_seconds=9), new_task()
        )
        assert ids(await case.claim()) == [running.id]
        for task in (now, soon, running):
            await case.store.delete(task.id, ANONYMOUS)
        case.clock.advance(LEASE + 1)
        assert await case.store.reclaim(max_crashes=5, limit=9) == []
        assert ids(await case.claim(9)) == [kept.id]

    # --- what a worker hears ---------------------------------------------------------------------

    @on_event_loop
    async def test_interruptions_tell_what_was_cancelled_and_what_is_lost(self, case: Case) -> None:
        kept, cancelled, deleted, settled = claims = await case.start(
            *(new_task() for _ in range(4))
        )
        await case.store.request_cancel(cancelled.task.id, ANONYMOUS)
        await case.store.delete(deleted.task.id, ANONYMOUS)
        await case.settle(Completed(settled.fence, RESULT, USAGE))
        unknown, older = Fence(new_task().id, 1), Fence(kept.task.id, 0)
        told = await case.store.interruptions([unknown, older, *(one.fence for one in claims)])
        assert told == {
            cancelled.fence: Interruption.CANCEL,
            deleted.fence: Interruption.LOST,
            settled.fence: Interruption.LOST,
            unknown: Interruption.LOST,
            older: Interruption.LOST,
        }
        assert await case.store.interruptions([]) == {}

    @on_event_loop
    async def test_an_attempt_is_lost_to_the_next(self, case: Case) -> None:
        [old] = await case.start()
        await case.settle(HandedBack(old.fence))
        [new] = await case.claim()
        assert await case.store.interruptions([old.fence, new.fence]) == {
            old.fence: Interruption.LOST
        }
        assert await case.task(new.task.id) == new.task
