"""Who gets which task, and when."""

import asyncio
from itertools import cycle, product
from typing import Any

import pytest

from adapters.testing.store_case import BUSY, JSON_TEXTS, LEASE, WORKER, Case, ids, new_task
from adapters.testing.store_contract.base import Contract, on_event_loop
from domain.ports import Claim, Retry
from domain.task import NewTask


def all_kinds() -> list[NewTask]:
    """Urgent and patient tasks, due now or soon, in every combination."""
    return [
        new_task(head_start_seconds=head_start, delay_seconds=delay)
        for head_start, delay in product([0, -4, 4, 2], [None, 5, 0, 9, 2])
    ]


class Claiming(Contract):
    """Who gets which task, and when."""

    @pytest.mark.parametrize("text", JSON_TEXTS.values(), ids=JSON_TEXTS)
    @on_event_loop
    async def test_a_claim_brings_input_and_options_as_they_were_submitted(
        self, case: Case, text: bytes
    ) -> None:
        [claim] = await case.start(new_task(input=text, options=b'{"o":' + text + b"}"))
        assert claim.input == text
        assert claim.options == b'{"o":' + text + b"}"

    @on_event_loop
    async def test_a_claimed_task_is_running_at_its_next_attempt(self, case: Case) -> None:
        [task] = await case.submit()
        case.clock.advance(2)
        [claim] = await case.claim()
        assert claim.task == task.claimed(case.clock.now())
        assert await case.task(task.id) == claim.task

    @on_event_loop
    async def test_tasks_are_claimed_in_the_order_of_acceptance(self, case: Case) -> None:
        tasks = await case.submit(*(new_task() for _ in range(30)))
        tasks += [(await case.submit())[0] for _ in range(10)]
        assert ids(await case.claim(15)) + ids(await case.claim(99)) == ids(tasks)

    @on_event_loop
    async def test_the_task_that_became_due_first_is_claimed_first(self, case: Case) -> None:
        [retried] = await case.start()
        await case.settle(Retry(retried.fence, BUSY, seconds=5))
        [early] = await case.submit()
        case.clock.advance(10)
        [late] = await case.submit()
        assert ids(await case.claim(3)) == [early.id, retried.task.id, late.id]

    @on_event_loop
    async def test_ties_fall_to_acceptance_also_after_a_retry(self, case: Case) -> None:
        claims = await case.start(*(new_task() for _ in range(10)))
        backwards = [Retry(claim.fence, BUSY, seconds=5) for claim in reversed(claims)]
        await case.store.settle(backwards)
        case.clock.advance(5)
        await case.submit()
        assert ids(await case.claim(10)) == ids(claims)

    @pytest.mark.parametrize(("younger_by", "first"), [(59.9, "urgent"), (60.1, "plain")])
    @on_event_loop
    async def test_a_head_start_is_worth_its_seconds_of_waiting_and_no_more(
        self, case: Case, younger_by: float, first: str
    ) -> None:
        await case.submit(new_task(model="plain"))
        case.clock.advance(younger_by)
        await case.submit(new_task(model="urgent", head_start_seconds=60))
        [claim] = await case.claim()
        assert claim.task.model == first

    @pytest.mark.parametrize(("younger_by", "first"), [(59.9, "plain"), (60.1, "patient")])
    @on_event_loop
    async def test_a_task_of_low_priority_waits_its_seconds_longer_and_does_not_starve(
        self, case: Case, younger_by: float, first: str
    ) -> None:
        await case.submit(new_task(model="patient", head_start_seconds=-60))
        case.clock.advance(younger_by)
        await case.submit(new_task(model="plain"))
        [claim] = await case.claim()
        assert claim.task.model == first

    @on_event_loop
    async def test_a_head_start_makes_no_task_early(self, case: Case) -> None:
        [urgent] = await case.submit(new_task(head_start_seconds=600, delay_seconds=10))
        [plain] = await case.submit()
        case.clock.advance(9.999)
        assert ids(await case.claim(9)) == [plain.id]
        [later] = await case.submit()
        case.clock.advance(0.001)
        assert ids(await case.claim(9)) == [urgent.id, later.id]

    @on_event_loop
    async def test_a_head_start_holds_after_a_retry_too(self, case: Case) -> None:
        [urgent] = await case.start(new_task(head_start_seconds=600))
        await case.settle(Retry(urgent.fence, BUSY, seconds=5))
        [plain] = await case.submit()
        case.clock.advance(5)
        assert ids(await case.claim(2)) == [urgent.task.id, plain.id]

    @pytest.mark.parametrize("rooms", [[1], [9], [0, 3, 7, 1]])
    @pytest.mark.parametrize("steps", [[1], [0, 2, 0, 0, 5]])
    @on_event_loop
    async def test_claims_take_the_due_task_of_the_lowest_rank_whatever_was_asked_for(
        self, case: Case, rooms: list[int], steps: list[int]
    ) -> None:
        waiting = await case.submit(*all_kinds(), *reversed(all_kinds()))
        for room, seconds in zip(cycle(rooms), cycle(steps), strict=False):
            due = [task for task in waiting if task.due_at <= case.clock.now()]
            due.sort(key=lambda task: task.rank)  # ties stay in the order of acceptance
            assert ids(await case.claim(room)) == ids(due[:room])
            waiting = [task for task in waiting if task not in due[:room]]
            case.clock.advance(seconds)
            if not waiting:
                break

    @pytest.mark.parametrize("room", [0, 1, 4, 5, 6])
    @on_event_loop
    async def test_no_more_is_claimed_than_there_is_room_for(self, case: Case, room: int) -> None:
        await case.submit(*(new_task() for _ in range(5)))
        assert len(await case.claim(room)) == min(room, 5)
        assert (await case.store.counts()).running == min(room, 5)

    @on_event_loop
    async def test_room_is_counted_for_each_executor(self, case: Case) -> None:
        await case.submit(*(new_task(executor=name) for name in "aaaabbbbcccc"))
        claims = await case.store.claim(WORKER, {"a": 1, "b": 3, "c": 0}, LEASE)
        assert sorted(claim.task.executor for claim in claims) == ["a", "b", "b", "b"]

    @on_event_loop
    async def test_no_room_at_all_claims_nothing(self, case: Case) -> None:
        await case.submit()
        assert await case.store.claim(WORKER, {}, LEASE) == []

    @on_event_loop
    async def test_a_full_or_unknown_executor_holds_up_no_other(self, case: Case) -> None:
        await case.submit(*(new_task(executor=name) for name in ["full", "unknown"] * 200))
        [behind] = await case.submit()
        claims = await case.store.claim(WORKER, {"full": 0, "echo": 5, "idle": 5}, LEASE)
        assert ids(claims) == [behind.id]

    @on_event_loop
    async def test_a_task_that_is_not_due_is_left_alone_and_holds_up_no_other(
        self, case: Case
    ) -> None:
        waiting = await case.start(*(new_task() for _ in range(20)))
        await case.store.settle([Retry(claim.fence, BUSY, seconds=60) for claim in waiting])
        [due] = await case.submit()
        assert ids(await case.claim(99)) == [due.id]

    @pytest.mark.parametrize(("passed", "claimed"), [(6.999, 0), (7.0, 1)])
    @on_event_loop
    async def test_a_retried_task_is_claimed_from_the_moment_it_is_due(
        self, case: Case, passed: float, claimed: int
    ) -> None:
        [claim] = await case.start()
        await case.settle(Retry(claim.fence, BUSY, seconds=7))
        case.clock.advance(passed)
        assert len(await case.claim()) == claimed

    @pytest.mark.parametrize("asked", [{"delay_seconds": 7}, {"run_at": 1_700_000_007_000_000}])
    @pytest.mark.parametrize(("passed", "claimed"), [(6.999, 0), (7.0, 1)])
    @on_event_loop
    async def test_a_task_is_claimed_from_the_moment_that_it_asked_for(
        self, case: Case, asked: dict[str, Any], passed: float, claimed: int
    ) -> None:
        await case.submit(new_task(**asked))
        case.clock.advance(passed)
        assert len(await case.claim()) == claimed

    @on_event_loop
    async def test_a_moment_that_has_passed_is_now(self, case: Case) -> None:
        [plain] = await case.submit()
        [late] = await case.submit(new_task(run_at=0))
        assert ids(await case.claim(2)) == [plain.id, late.id]

    @on_event_loop
    async def test_concurrent_claims_get_each_task_once(self, case: Case) -> None:
        tasks = await case.submit(*(new_task() for _ in range(300)))
        found = await asyncio.gather(*(case.claim(1 + n % 3) for n in range(200)))
        claims = [claim for batch in found for claim in batch]
        assert sorted(ids(claims)) == sorted(ids(tasks))
        assert {claim.task.attempt for claim in claims} == {1}

    @on_event_loop
    async def test_submits_and_claims_at_once_leave_nothing_behind(self, case: Case) -> None:
        async def submit_and_claim() -> list[Claim]:
            await case.submit()
            return await case.claim(2)

        found = await asyncio.gather(*(submit_and_claim() for _ in range(100)))
        claims = [claim for batch in found for claim in batch] + await case.claim(100)
        assert len(set(ids(claims))) == len(claims) == 100
