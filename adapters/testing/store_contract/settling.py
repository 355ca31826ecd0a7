"""How attempts end, and which of their writes count."""

import asyncio

import pytest

from adapters.testing.store_case import (
    BUSY,
    ERROR,
    JSON_TEXTS,
    LEASE,
    OUTCOMES,
    RESULT,
    RETRY_SECONDS,
    USAGE,
    Case,
    ids,
    new_task,
)
from adapters.testing.store_contract.base import Contract, on_event_loop
from domain.inference import Routes
from domain.ports import Completed, Crashed, Failed, Fence, HandedBack, Retry, TaskCounts
from domain.task import (
    MOST_PAST_ATTEMPTS,
    TRANSITIONS,
    WORKER_LOST,
    AttemptOutcome,
    AttemptRecord,
    Move,
    TaskStatus,
)


class Settling(Contract):
    """How attempts end, and which of their writes count."""

    @pytest.mark.parametrize("text", JSON_TEXTS.values(), ids=JSON_TEXTS)
    @on_event_loop
    async def test_a_result_is_kept_as_it_was_given(self, case: Case, text: bytes) -> None:
        [claim] = await case.start()
        await case.settle(Completed(claim.fence, b'{"output":' + text + b"}", None))
        done = await case.task(claim.task.id)
        assert done.result == b'{"output":' + text + b"}"
        assert done.usage is None

    @on_event_loop
    async def test_outcomes_are_settled_one_by_one_and_answered_in_order(self, case: Case) -> None:
        claims = await case.start(*(new_task() for _ in OUTCOMES))
        outcomes = [
            make(claim.fence) for make, claim in zip(OUTCOMES.values(), claims, strict=True)
        ]
        unknown = HandedBack(Fence(new_task().id, 1))
        assert await case.store.settle([unknown, *outcomes]) == [
            None,
            *(TRANSITIONS[TaskStatus.RUNNING, move] for move in OUTCOMES),
        ]
        assert await case.store.counts() == TaskCounts(
            pending=2, completed=1, failed=1, cancelled=1
        )

    @on_event_loop
    async def test_settling_nothing_changes_nothing(self, case: Case) -> None:
        assert await case.store.settle([]) == []

    @on_event_loop
    async def test_only_the_first_outcome_of_an_attempt_counts(self, case: Case) -> None:
        [claim] = await case.start()
        first, second = Completed(claim.fence, RESULT, USAGE), Failed(claim.fence, ERROR)
        assert await case.store.settle([first, second]) == [TaskStatus.COMPLETED, None]
        assert (await case.task(claim.task.id)).status is TaskStatus.COMPLETED

    @on_event_loop
    async def test_of_many_outcomes_at_once_exactly_one_counts(self, case: Case) -> None:
        [claim] = await case.start()
        outcomes = [Completed(claim.fence, b'{"output":%d}' % n, None) for n in range(50)]
        written = await asyncio.gather(*(case.settle(outcome) for outcome in outcomes))
        assert written.count(None) == len(outcomes) - 1
        [winner] = [one for one, status in zip(outcomes, written, strict=True) if status]
        assert (await case.task(claim.task.id)).result == winner.result

    @pytest.mark.parametrize("move", OUTCOMES)
    @pytest.mark.parametrize("attempt", [0, 1, 3])
    @on_event_loop
    async def test_an_outcome_of_an_older_or_newer_attempt_changes_nothing(
        self, case: Case, move: Move, attempt: int
    ) -> None:
        [first] = await case.start()
        await case.settle(HandedBack(first.fence))
        [second] = await case.claim()
        assert not await case.settle(OUTCOMES[move](Fence(second.task.id, attempt)))
        assert await case.task(second.task.id) == second.task
        assert await case.settle(Completed(second.fence, RESULT, USAGE))

    @on_event_loop
    async def test_a_result_that_comes_after_the_lease_still_counts_if_nobody_took_the_task(
        self, case: Case
    ) -> None:
        [claim] = await case.start()
        case.clock.advance(LEASE * 10)
        assert await case.settle(Completed(claim.fence, RESULT, USAGE))

    @on_event_loop
    async def test_every_attempt_is_remembered_with_its_end(self, case: Case) -> None:
        [task] = await case.submit(new_task(executor="gone"))
        moments = []

        async def attempt(executor: str, move: Move) -> None:
            [claim] = await case.claim(executor=executor)
            moments.append(case.clock.now())
            case.clock.advance(2)
            assert await case.move(move, claim.fence)
            moments.append(case.clock.now())
            case.clock.advance(RETRY_SECONDS)

        await attempt("gone", Move.RETRY)
        await case.store.reroute(["echo"], Routes({}, fallback="echo"))
        for move in (Move.HAND_BACK, Move.LOSE_WORKER, Move.COMPLETE):
            await attempt("echo", move)
        starts, ends = moments[::2], moments[1::2]
        assert (await case.task(task.id)).attempts == (
            AttemptRecord(1, "gone", starts[0], ends[0], AttemptOutcome.FAILED, BUSY.code),
            AttemptRecord(2, "echo", starts[1], ends[1], AttemptOutcome.HANDED_BACK, None),
            AttemptRecord(3, "echo", starts[2], ends[2], AttemptOutcome.WORKER_LOST, WORKER_LOST),
            AttemptRecord(4, "echo", starts[3], ends[3], AttemptOutcome.COMPLETED, None),
        )

    @on_event_loop
    async def test_of_very_many_attempts_the_latest_are_remembered(self, case: Case) -> None:
        [task] = await case.submit()
        for number in range(1, MOST_PAST_ATTEMPTS + 4):
            await case.claim()
            await case.settle(HandedBack(Fence(task.id, number)))
        await case.claim()
        numbers = [one.number for one in (await case.task(task.id)).attempts]
        assert numbers == list(range(4, MOST_PAST_ATTEMPTS + 5))

    @on_event_loop
    async def test_a_retried_task_keeps_no_trace_of_its_error(self, case: Case) -> None:
        [claim] = await case.start()
        await case.settle(Retry(claim.fence, BUSY, seconds=0))
        [again] = await case.claim()
        assert (again.task.attempt, again.task.failures, again.task.crashes) == (2, 1, 0)
        assert again.task.error is None

    @on_event_loop
    async def test_a_task_that_is_handed_back_keeps_its_turn_and_counts_nothing(
        self, case: Case
    ) -> None:
        [first] = await case.start()
        case.clock.advance(5)
        [later] = await case.submit()
        await case.settle(HandedBack(first.fence))
        again, _ = claims = await case.claim(2)
        assert ids(claims) == [first.task.id, later.id]
        assert (again.task.attempt, again.task.failures, again.task.crashes) == (2, 0, 0)

    @on_event_loop
    async def test_a_crash_that_the_worker_outlived_counts_as_one_that_it_did_not(
        self, case: Case
    ) -> None:
        [first] = await case.start()
        case.clock.advance(1)
        assert await case.settle(Crashed(first.fence, max_crashes=1)) is TaskStatus.PENDING
        assert await case.task(first.task.id) == first.task.worker_vanished(case.clock.now(), 1)
        [second] = await case.claim()
        assert await case.settle(Crashed(second.fence, max_crashes=1)) is TaskStatus.FAILED
        lost = await case.task(first.task.id)
        assert lost == second.task.worker_vanished(case.clock.now(), 1)
        assert (lost.error and lost.error.code, lost.failures) == (WORKER_LOST, 0)

    @on_event_loop
    async def test_a_crash_after_the_cancel_request_is_a_cancellation(self, case: Case) -> None:
        [claim] = await case.start()
        await case.cancel(claim.task.id)
        assert await case.settle(Crashed(claim.fence, max_crashes=0)) is TaskStatus.CANCELLED
        assert (await case.task(claim.task.id)).crashes == 1
