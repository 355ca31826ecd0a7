"""What holds for a store that remembers: closed or killed, it forgets nothing."""

from collections.abc import Awaitable, Callable
from typing import Final

import pytest
from msgspec.structs import replace

from adapters.testing.store_case import (
    BUSY,
    JSON_TEXTS,
    KEEP_ALL,
    LEASE,
    NO_LIMITS,
    REACHABLE,
    RESULT,
    USAGE,
    Case,
    ids,
    new_task,
)
from adapters.testing.store_contract.base import Contract, on_event_loop
from domain.ports import (
    Completed,
    Mismatch,
    QueueFull,
    Reclaimed,
    Replayed,
    Retry,
    SubmitLimits,
    TaskCounts,
)
from domain.query import TaskQuery
from domain.retention import RetentionPolicy
from domain.task import ANONYMOUS, Idempotency, NewTask, TaskStatus

COMING_BACK: Final = pytest.mark.parametrize(
    "come_back", [Case.reopen, Case.crash], ids=["closed", "killed"]
)
ComeBack = Callable[[Case], Awaitable[None]]


class Durable(Contract):
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
    async def test_what_a_task_asked_for_outlives_the_process(
        self, case: Case, come_back: ComeBack
    ) -> None:
        [task] = await case.submit(
            new_task(
                model="gpt-π",
                metadata={"käse": '"\n\\'},
                priority=-3,
                head_start_seconds=-180,
                delay_seconds=5,
                deadline_seconds=60,
                retry_of=new_task().id,
            )
        )
        await come_back(case)
        assert await case.task(task.id) == task

    @COMING_BACK
    @on_event_loop
    async def test_a_task_waits_for_its_time_across_processes(
        self, case: Case, come_back: ComeBack
    ) -> None:
        late, urgent, soon = await case.submit(
            new_task(delay_seconds=60), new_task(delay_seconds=9, head_start_seconds=60), new_task()
        )
        await come_back(case)
        assert ids(await case.claim(9)) == [soon.id]
        case.clock.advance(9)
        assert ids(await case.claim(9)) == [urgent.id]
        await come_back(case)
        case.clock.advance(51)
        assert ids(await case.claim(9)) == [late.id]

    @COMING_BACK
    @on_event_loop
    async def test_a_deadline_holds_across_processes(self, case: Case, come_back: ComeBack) -> None:
        [task] = await case.submit(new_task(deadline_seconds=10, delay_seconds=99))
        await come_back(case)
        assert await case.store.expire(limit=9) == 0
        case.clock.advance(10)
        assert await case.store.expire(limit=9) == 1
        assert await case.task(task.id) == task.expired(case.clock.now())

    @COMING_BACK
    @on_event_loop
    async def test_a_request_to_cancel_outlives_the_process(
        self, case: Case, come_back: ComeBack
    ) -> None:
        [claim] = await case.start()
        await case.store.request_cancel(claim.task.id, ANONYMOUS)
        await come_back(case)
        assert await case.lose() == [Reclaimed(claim.fence, TaskStatus.CANCELLED)]
        assert (await case.task(claim.task.id)).cancel_requested_at is not None

    @COMING_BACK
    @on_event_loop
    async def test_a_deleted_task_does_not_come_back(self, case: Case, come_back: ComeBack) -> None:
        for status in REACHABLE:
            task, _ = await case.in_status(status)
            await case.store.delete(task.id, ANONYMOUS)
        await come_back(case)
        assert await case.store.counts() == TaskCounts()
        assert await case.claim(9) == []

    @COMING_BACK
    @on_event_loop
    async def test_a_repetition_is_known_across_processes(
        self, case: Case, come_back: ComeBack
    ) -> None:
        def keyed(fingerprint: bytes) -> NewTask:
            return new_task(idempotency=Idempotency("key", fingerprint))

        [task] = await case.submit(keyed(b"\0\xff"))
        await come_back(case)
        answers = await case.store.submit([keyed(b"\0\xff"), keyed(b"\0")], NO_LIMITS)
        assert answers == [Replayed(task), Mismatch()]

    @COMING_BACK
    @on_event_loop
    async def test_a_page_is_followed_by_the_next_across_processes(
        self, case: Case, come_back: ComeBack
    ) -> None:
        tasks = await case.submit(*(new_task() for _ in range(4)))
        asked = TaskQuery(owner=ANONYMOUS, newest_first=False, limit=2)
        page = await case.store.find(asked)
        await come_back(case)
        rest = await case.store.find(replace(asked, start=page.next))
        assert [one.task for one in (*page.found, *rest.found)] == tasks

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
