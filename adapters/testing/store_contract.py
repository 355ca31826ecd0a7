"""The contract of every store: `domain.ports`, sentence by sentence, as tests.

Subclass it in a test module of yours; pytest does the rest:

    class TestMyStore(DurableStoreContract):
        def open_store(self, place: Path, clock: FakeClock) -> AbstractAsyncContextManager[Store]:
            return MyStore(MyOptions(path=str(place / "tasks.db")), clock)

`StoreContract` holds for every store, `DurableStoreContract` for one that remembers what it was
told when it is opened again, `EmbeddedStoreContract` for one that lives in one process and goes by
the clock it is given. Derive from all that fit. With
`pytest.register_assert_rewrite("adapters.testing")` in a conftest, a failure shows its values.

Which move is allowed from which status is read from `domain.task.TRANSITIONS`, and what it changes
from the moves of `domain.task.Task`: there is no second state machine in here.
"""

import asyncio
import functools
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final

import pytest

from adapters.testing.fakes import FakeClock
from adapters.testing.store_case import (
    BUSY,
    ERROR,
    KEEP_ALL,
    LEASE,
    MOVED,
    NO_LIMITS,
    OUTCOMES,
    REACHABLE,
    RESULT,
    USAGE,
    WORKER,
    Case,
    ids,
    new_task,
)
from domain.inference import Routes
from domain.ports import (
    PURGED_PER_SUBMIT,
    Accepted,
    Claim,
    Completed,
    Failed,
    Fence,
    HandedBack,
    QueueFull,
    Reclaimed,
    Retry,
    Store,
    SubmitLimits,
    TaskCounts,
)
from domain.retention import RetentionPolicy
from domain.task import ANONYMOUS, TRANSITIONS, Move, TaskStatus

HOUR: Final = 3600.0
DEADLINE: Final = 10.0

JSON_TEXTS: Final = {
    "empty string": b'""',
    "U+0000 in a string": b'"a\\u0000b"',
    "U+0000 in a key": b'{"\\u0000":"\\u0000"}',
    "unicode": '"这是一个测试输入 😀 é"'.encode(),
    "escaped surrogates": b'"\\ud83d\\ude00"',
    "white space": b'{ "a" :\t[ 1 , 2 ]\n}',
    "same key twice": b'{"a":1,"a":2}',
    "exact numbers": b"[1.50,-0.0,1e300,9007199254740993,-9223372036854775808]",
    "depth 64": b"[" * 64 + b"]" * 64,
    "a megabyte": b'"' + b"x" * 1_048_574 + b'"',
}

REFUSED: Final = [
    (status, move) for status in REACHABLE for move in Move if (status, move) not in TRANSITIONS
]


def on_event_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make an `async def` a test: its store is opened, used and closed in one event loop."""

    @functools.wraps(test)
    def run(self: Any, case: Case, **parameters: Any) -> None:
        async def whole() -> None:
            async with case:
                await test(self, case, **parameters)

        asyncio.run(whole())

    return run


class StoreContract:
    """What holds for every store."""

    def open_store(self, place: Path, clock: FakeClock) -> AbstractAsyncContextManager[Store]:
        """An empty store, or the one that was opened in this folder before, going by `clock`."""
        raise NotImplementedError

    @pytest.fixture
    def case(self, tmp_path: Path) -> Case:
        return Case(self.open_store, tmp_path)

    # --- moves -----------------------------------------------------------------------------------

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

    # --- submit ----------------------------------------------------------------------------------

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

    # --- get and counts --------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "task_id", ["", "no-uuid", "\0", "'; --", "é" * 5_000, str(uuid.uuid4())]
    )
    @on_event_loop
    async def test_an_unknown_id_finds_nothing(self, case: Case, task_id: str) -> None:
        await case.submit()
        assert await case.store.get(task_id, ANONYMOUS) is None

    @on_event_loop
    async def test_a_task_is_found_by_its_owner_only(self, case: Case) -> None:
        [task] = await case.submit(new_task(owner="alice"))
        assert await case.store.get(task.id, "alice") == task
        for stranger in ("bob", "", "ALICE", ANONYMOUS):
            assert await case.store.get(task.id, stranger) is None

    @on_event_loop
    async def test_counts_are_of_all_owners_and_executors(self, case: Case) -> None:
        await case.submit(new_task(owner="alice"), new_task(executor="other"), new_task())
        assert await case.store.counts() == TaskCounts(pending=3)

    # --- claim: order, room, due -----------------------------------------------------------------

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

    # --- settle: fencing and results -------------------------------------------------------------

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

    # --- leases: renew and reclaim ---------------------------------------------------------------

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

    # --- reroute ---------------------------------------------------------------------------------

    @on_event_loop
    async def test_pending_tasks_of_other_executors_go_where_their_model_says(
        self, case: Case
    ) -> None:
        routes = Routes(by_model={"m": "llama"}, fallback="echo")
        by_model, by_none, known = await case.submit(
            new_task(executor="gone", model="m"),
            new_task(executor="away"),
            new_task(executor="llama"),
        )
        assert await case.store.reroute(["echo", "llama"], routes) == 2
        assert await case.task(by_model.id) == by_model.routed("llama")
        assert await case.task(by_none.id) == by_none.routed("echo")
        assert await case.task(known.id) == known
        assert await case.store.reroute(["echo", "llama"], routes) == 0

    @on_event_loop
    async def test_a_rerouted_task_keeps_its_turn(self, case: Case) -> None:
        tasks = await case.submit(new_task(), new_task(executor="gone"), new_task())
        await case.store.reroute(["echo"], Routes({}, fallback="echo"))
        assert ids(await case.claim(3)) == ids(tasks)

    @on_event_loop
    async def test_a_rerouted_task_is_not_due_earlier(self, case: Case) -> None:
        [task] = await case.submit(new_task(executor="gone"))
        [claim] = await case.claim(executor="gone")
        await case.settle(Retry(claim.fence, BUSY, seconds=60))
        await case.store.reroute(["echo"], Routes({}, fallback="echo"))
        assert await case.claim() == []
        case.clock.advance(60)
        assert ids(await case.claim()) == [task.id]

    @on_event_loop
    async def test_running_and_finished_tasks_are_not_rerouted(self, case: Case) -> None:
        await case.submit(new_task(executor="gone"), new_task(executor="gone"))
        finished, running = await case.claim(2, executor="gone")
        await case.settle(Completed(finished.fence, RESULT, USAGE))
        assert await case.store.reroute(["echo"], Routes({}, fallback="echo")) == 0
        assert (await case.task(finished.task.id)).executor == "gone"
        assert await case.task(running.task.id) == running.task

    # --- purge -----------------------------------------------------------------------------------

    @pytest.mark.parametrize("move", [Move.COMPLETE, Move.FAIL, Move.GIVE_UP])
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

    # --- hints -----------------------------------------------------------------------------------

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
        await asyncio.wait_for(told.wait(), DEADLINE)

    @on_event_loop
    async def test_a_listener_is_told_of_rerouted_tasks(self, case: Case) -> None:
        await case.submit(new_task(executor="gone"))
        told = asyncio.Event()
        case.store.on_work(told.set)
        await case.store.reroute(["echo"], Routes({}, fallback="echo"))
        await asyncio.wait_for(told.wait(), DEADLINE)

    @on_event_loop
    async def test_a_listener_that_was_ended_is_told_no_more(self, case: Case) -> None:
        ended, kept = asyncio.Event(), asyncio.Event()
        end = case.store.on_work(ended.set)
        case.store.on_work(kept.set)
        end()
        await case.submit()
        await asyncio.wait_for(kept.wait(), DEADLINE)
        assert not ended.is_set()


class EmbeddedStoreContract(StoreContract):
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


COMING_BACK: Final = pytest.mark.parametrize(
    "come_back", [Case.reopen, Case.crash], ids=["closed", "killed"]
)
ComeBack = Callable[[Case], Awaitable[None]]


class DurableStoreContract(StoreContract):
    """What holds for a store that remembers: closed in good order or killed, it forgets nothing."""

    @COMING_BACK
    @pytest.mark.parametrize("status", REACHABLE)
    @on_event_loop
    async def test_a_task_outlives_the_process_in_every_status(
        self, case: Case, come_back: ComeBack, status: TaskStatus
    ) -> None:
        task, _ = await case.in_status(status)
        await come_back(case)
        assert await case.task(task.id) == task
        assert await case.store.counts() == TaskCounts(**{status: 1})

    @COMING_BACK
    @on_event_loop
    async def test_input_options_and_the_order_of_claims_outlive_the_process(
        self, case: Case, come_back: ComeBack
    ) -> None:
        news = [new_task(input=text, options=b'{"o":%s}' % text) for text in JSON_TEXTS.values()]
        await case.submit(*news)
        await come_back(case)
        news.append(new_task())
        await case.submit(news[-1])
        claims = await case.claim(99)
        assert [(claim.task.id, claim.input, claim.options) for claim in claims] == [
            (new.id, new.input, new.options) for new in news
        ]

    @COMING_BACK
    @on_event_loop
    async def test_a_task_waits_out_its_retry_across_processes(
        self, case: Case, come_back: ComeBack
    ) -> None:
        [claim] = await case.start()
        await case.settle(Retry(claim.fence, BUSY, seconds=60))
        await come_back(case)
        assert await case.claim() == []
        case.clock.advance(60)
        assert ids(await case.claim()) == [claim.task.id]

    @COMING_BACK
    @on_event_loop
    async def test_the_fence_holds_across_processes(self, case: Case, come_back: ComeBack) -> None:
        [old] = await case.start()
        await come_back(case)
        await case.lose()
        [new] = await case.claim()
        assert new.task.attempt == old.task.attempt + 1
        assert not await case.settle(Completed(old.fence, RESULT, USAGE))
        assert await case.store.renew([old.fence], LEASE) == set()
        assert await case.settle(Completed(new.fence, RESULT, USAGE))

    @COMING_BACK
    @on_event_loop
    async def test_crashes_add_up_across_processes(self, case: Case, come_back: ComeBack) -> None:
        [task] = await case.submit()
        for _ in range(2):
            await case.claim()
            await come_back(case)
            await case.lose(max_crashes=1)
        assert (await case.task(task.id)).status is TaskStatus.FAILED

    @COMING_BACK
    @on_event_loop
    async def test_limits_and_retention_know_the_tasks_of_before(
        self, case: Case, come_back: ComeBack
    ) -> None:
        await case.finish(new_task(), new_task())
        await case.submit()
        await come_back(case)
        limits = SubmitLimits(max_pending=1, retention=KEEP_ALL)
        assert await case.store.submit([new_task()], limits) == [QueueFull(pending=1)]
        assert await case.store.purge(RetentionPolicy(0, max_tasks=2), limit=9) == 1
        assert await case.store.counts() == TaskCounts(pending=1, completed=1)
