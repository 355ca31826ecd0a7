"""Submits that are sent more than once, under a key."""

import asyncio
from typing import Any, Final

import pytest

from adapters.testing.store_case import KEEP_ALL, NO_LIMITS, Case, ids, new_task
from adapters.testing.store_contract.base import Contract, on_event_loop
from domain.ports import (
    KEY_KEPT_SECONDS,
    Accepted,
    Mismatch,
    QueueFull,
    Replayed,
    SubmitAnswer,
    SubmitLimits,
    TaskCounts,
)
from domain.retention import RetentionPolicy
from domain.task import ANONYMOUS, Idempotency, NewTask, Task

FINGERPRINT: Final = bytes(range(0, 256, 8))


def keyed(key: str = "key", fingerprint: bytes = FINGERPRINT, **changes: Any) -> NewTask:
    """A new task under this key."""
    return new_task(idempotency=Idempotency(key, fingerprint), **changes)


async def submit(case: Case, new: NewTask, limits: SubmitLimits = NO_LIMITS) -> SubmitAnswer:
    """Submit this task alone."""
    [answer] = await case.store.submit([new], limits)
    return answer


async def accept(case: Case, new: NewTask) -> Task:
    """Submit this task, which must be new."""
    answer = await submit(case, new)
    assert isinstance(answer, Accepted)
    return answer.task


class Repeating(Contract):
    """Submits that are sent more than once, under a key."""

    @on_event_loop
    async def test_the_same_under_the_same_key_is_the_same_task(self, case: Case) -> None:
        task = await accept(case, keyed())
        case.clock.advance(1)
        assert await submit(case, keyed()) == Replayed(task)
        assert await case.store.counts() == TaskCounts(pending=1)

    @on_event_loop
    async def test_something_else_under_the_same_key_is_a_mismatch(self, case: Case) -> None:
        task = await accept(case, keyed())
        assert await submit(case, keyed(fingerprint=b"another")) == Mismatch()
        assert await submit(case, keyed()) == Replayed(task)
        assert await case.store.counts() == TaskCounts(pending=1)

    @on_event_loop
    async def test_a_repetition_is_shown_what_came_of_the_task(self, case: Case) -> None:
        finished, cancelled = await accept(case, keyed("1")), await accept(case, keyed("2"))
        await case.store.request_cancel(cancelled.id, ANONYMOUS)
        await case.finish()
        for task in (finished, cancelled):
            now = await case.task(task.id)
            assert await submit(case, keyed("1" if task is finished else "2")) == Replayed(now)
        assert (await case.task(cancelled.id)).done

    @pytest.mark.parametrize("other", ["KEY", "key ", "k", "~" * 255])
    @on_event_loop
    async def test_another_key_makes_another_task(self, case: Case, other: str) -> None:
        await accept(case, keyed("key"))
        task = await accept(case, keyed(other))
        assert await submit(case, keyed(other)) == Replayed(task)

    @on_event_loop
    async def test_without_a_key_nothing_is_a_repetition(self, case: Case) -> None:
        await accept(case, new_task())
        await accept(case, new_task())

    @on_event_loop
    async def test_every_owner_has_keys_of_their_own(self, case: Case) -> None:
        mine = await accept(case, keyed(owner="alice"))
        await accept(case, keyed(owner="bob", fingerprint=b"another"))
        assert await submit(case, keyed(owner="alice")) == Replayed(mine)

    @on_event_loop
    async def test_a_repetition_is_known_also_when_the_queue_is_full(self, case: Case) -> None:
        limits = SubmitLimits(max_pending=1, retention=KEEP_ALL)
        task = await accept(case, keyed())
        assert await submit(case, keyed(), limits) == Replayed(task)
        assert await submit(case, keyed(fingerprint=b"another"), limits) == Mismatch()
        assert await submit(case, keyed("new"), limits) == QueueFull(pending=1)

    @on_event_loop
    async def test_a_submit_that_was_refused_uses_no_key(self, case: Case) -> None:
        full = SubmitLimits(max_pending=0, retention=KEEP_ALL)
        assert await submit(case, keyed(fingerprint=b"another"), full) == QueueFull(pending=0)
        await accept(case, keyed())

    @on_event_loop
    async def test_repetitions_are_known_within_one_submit_too(self, case: Case) -> None:
        news = [keyed("1"), keyed("2"), keyed("1"), keyed("2", b"another"), new_task()]
        first, second, *others = await case.store.submit(news, NO_LIMITS)
        assert isinstance(first, Accepted)
        assert isinstance(second, Accepted)
        assert others[:2] == [Replayed(first.task), Mismatch()]
        assert isinstance(others[2], Accepted)
        assert await case.store.counts() == TaskCounts(pending=3)

    @on_event_loop
    async def test_a_full_queue_refuses_repetitions_of_what_it_refused(self, case: Case) -> None:
        full = SubmitLimits(max_pending=1, retention=KEEP_ALL)
        news = [keyed("1"), *(keyed("2") for _ in range(9)), keyed("1")]
        answers = await case.store.submit(news, full)
        assert answers[1:-1] == [QueueFull(pending=1)] * 9
        assert isinstance(answers[0], Accepted)
        assert answers[-1] == Replayed(answers[0].task)

    @on_event_loop
    async def test_of_equal_submits_at_once_exactly_one_is_accepted(self, case: Case) -> None:
        answers = await asyncio.gather(*(submit(case, keyed()) for _ in range(20)))
        [task] = [answer.task for answer in answers if isinstance(answer, Accepted)]
        assert answers.count(Replayed(task)) == 19

    @on_event_loop
    async def test_a_key_is_kept_for_its_time_and_then_free(self, case: Case) -> None:
        old = await accept(case, keyed())
        case.clock.advance(KEY_KEPT_SECONDS - 1)
        assert await submit(case, keyed()) == Replayed(old)
        case.clock.advance(2)
        new = await accept(case, keyed(fingerprint=b"another"))
        assert await case.task(old.id) == old
        assert await submit(case, keyed(fingerprint=b"another")) == Replayed(new)

    @on_event_loop
    async def test_a_key_that_was_used_anew_stays_with_the_new_task(self, case: Case) -> None:
        old = await accept(case, keyed())
        case.clock.advance(KEY_KEPT_SECONDS + 1)
        new = await accept(case, keyed())
        await case.store.delete(old.id, ANONYMOUS)
        assert await submit(case, keyed()) == Replayed(new)

    @on_event_loop
    async def test_a_key_that_is_free_again_costs_its_task_no_turn(self, case: Case) -> None:
        old = await accept(case, keyed())
        case.clock.advance(KEY_KEPT_SECONDS + 1)
        accepted = await case.submit(keyed(), new_task())
        assert ids(await case.claim(3)) == ids([old, *accepted])

    @on_event_loop
    async def test_a_key_goes_with_its_task(self, case: Case) -> None:
        task = await accept(case, keyed())
        await case.store.delete(task.id, ANONYMOUS)
        [again] = await case.finish(keyed(fingerprint=b"another"))
        case.clock.advance(10)
        assert await case.store.purge(RetentionPolicy(1, 0), limit=9) == 1
        assert (await accept(case, keyed())).id != again.id
