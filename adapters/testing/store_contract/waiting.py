"""What is told of those who wait, and of those who work."""

import pytest

from adapters.testing.store_case import ERROR, RESULT, USAGE, Case, ids, new_task
from adapters.testing.store_contract.base import Contract, on_event_loop
from domain.inference import LARGEST_INTEGER, Usage
from domain.ports import LONGEST_POSITION, MOST_USAGE_LINES, Completed, Failed, QueueLine
from domain.retention import RetentionPolicy
from domain.task import ANONYMOUS, Task


async def positions(case: Case, *tasks: Task) -> list[int | None]:
    """The places of these tasks."""
    return [await case.store.queue_position(task) for task in tasks]


async def spent(case: Case, owner: str | None) -> dict[tuple[str, str | None], Usage]:
    """What this owner's tasks have cost, by executor and model."""
    lines = (await case.store.queue(owner)).usage
    assert len({(line.executor, line.model) for line in lines}) == len(lines)
    return {(line.executor, line.model): line.usage for line in lines}


class Waiting(Contract):
    """What is told of those who wait, and of those who work."""

    # --- a place in the queue --------------------------------------------------------------------

    @on_event_loop
    async def test_a_place_is_counted_from_1_in_the_order_of_claims(self, case: Case) -> None:
        plain, urgent, patient = tasks = await case.submit(
            new_task(), new_task(head_start_seconds=60), new_task(head_start_seconds=-60)
        )
        await case.submit(new_task(executor="other", head_start_seconds=60))
        assert await positions(case, *tasks) == [2, 1, 3]
        assert ids(await case.claim()) == [urgent.id]
        assert await positions(case, plain, patient) == [1, 2]

    @on_event_loop
    async def test_who_left_the_queue_is_not_counted(self, case: Case) -> None:
        cancelled, deleted, *_, last = await case.submit(*(new_task() for _ in range(5)))
        await case.store.request_cancel(cancelled.id, ANONYMOUS)
        await case.store.delete(deleted.id, ANONYMOUS)
        assert await positions(case, last) == [3]

    @on_event_loop
    async def test_only_a_pending_task_has_a_place(self, case: Case) -> None:
        [running] = await case.start()
        [finished] = await case.finish()
        deleted, cancelled = await case.submit(new_task(), new_task())
        await case.store.delete(deleted.id, ANONYMOUS)
        await case.store.request_cancel(cancelled.id, ANONYMOUS)
        asked = await positions(case, running.task, finished, deleted, cancelled)
        assert asked == [None] * 4

    @on_event_loop
    async def test_a_task_has_its_place_from_the_moment_it_is_due(self, case: Case) -> None:
        [plain] = await case.submit()
        patient, urgent = await case.submit(
            new_task(delay_seconds=5), new_task(delay_seconds=5, head_start_seconds=60)
        )
        case.clock.advance(4.999)
        assert await positions(case, plain, patient, urgent) == [1, None, None]
        case.clock.advance(0.001)
        assert await positions(case, plain, patient, urgent) == [2, 3, 1]

    @on_event_loop
    async def test_a_place_is_counted_so_far_and_no_further(self, case: Case) -> None:
        tasks = await case.submit(*(new_task() for _ in range(LONGEST_POSITION + 2)))
        assert await positions(case, *tasks[-4:]) == [
            LONGEST_POSITION - 1,
            LONGEST_POSITION,
            LONGEST_POSITION,
            LONGEST_POSITION,
        ]

    # --- the queue -------------------------------------------------------------------------------

    @on_event_loop
    async def test_live_tasks_are_counted_by_executor_and_model(self, case: Case) -> None:
        await case.start(new_task(model="m"), new_task(), new_task())
        await case.finish()
        await case.submit(new_task(model="m"), new_task(executor="other", model="m"))
        await case.submit(new_task(executor="other", model="m", delay_seconds=60))
        lines = (await case.store.queue(ANONYMOUS)).lines
        assert sorted(lines, key=lambda line: (line.executor, line.model or "")) == [
            QueueLine("echo", None, pending=0, running=2),
            QueueLine("echo", "m", pending=1, running=1),
            QueueLine("other", "m", pending=2, running=0),
        ]

    @on_event_loop
    async def test_the_queue_of_an_owner_is_of_their_tasks_only(self, case: Case) -> None:
        await case.submit(new_task(owner="alice"), new_task(owner="bob"), new_task(owner="bob"))
        counted = [
            [line.pending for line in (await case.store.queue(owner)).lines]
            for owner in ("alice", "bob", None, ANONYMOUS)
        ]
        assert counted == [[1], [2], [3], []]

    # --- what was spent --------------------------------------------------------------------------

    @on_event_loop
    async def test_usage_is_summed_by_executor_and_model_and_outlives_its_tasks(
        self, case: Case
    ) -> None:
        await case.finish(new_task(model="m"), new_task(model="m"), new_task())
        bobs, failing, silent = await case.start(
            new_task(owner="bob", model="m"), new_task(), new_task()
        )
        await case.settle(Completed(bobs.fence, RESULT, USAGE))
        await case.settle(Failed(failing.fence, ERROR))
        await case.settle(Completed(silent.fence, RESULT, None))
        twice, thrice = USAGE.plus(USAGE), USAGE.plus(USAGE).plus(USAGE)
        for _ in range(2):
            assert await spent(case, ANONYMOUS) == {("echo", "m"): twice, ("echo", None): USAGE}
            assert await spent(case, "bob") == {("echo", "m"): USAGE}
            assert await spent(case, None) == {("echo", "m"): thrice, ("echo", None): USAGE}
            await case.store.purge(RetentionPolicy(1e-6, 0), 100)
            case.clock.advance(1)

    @on_event_loop
    async def test_the_usage_of_ever_more_models_is_summed_under_none(self, case: Case) -> None:
        number = MOST_USAGE_LINES + 10
        await case.finish(*(new_task(model=str(n)) for n in range(number)))
        await case.finish(new_task(model="late"), new_task(model="0"))
        lines = await spent(case, ANONYMOUS)
        assert len(lines) <= number + 1
        assert ("echo", "late") not in lines
        assert lines["echo", "0"] == USAGE.plus(USAGE)
        assert sum(usage.total_tokens for usage in lines.values()) == (
            (number + 2) * USAGE.total_tokens
        )

    @on_event_loop
    async def test_no_usage_is_too_much_to_be_summed(self, case: Case) -> None:
        most = Usage(LARGEST_INTEGER, LARGEST_INTEGER, LARGEST_INTEGER)
        for _ in range(2):
            [claim] = await case.start()
            assert await case.settle(Completed(claim.fence, RESULT, most))
        assert await spent(case, ANONYMOUS) == {("echo", None): most}

    @on_event_loop
    async def test_what_ended_leaves_no_line_behind(self, case: Case) -> None:
        [claim] = await case.start()
        pending, deleted = await case.submit(new_task(), new_task())
        await case.settle(Completed(claim.fence, RESULT, USAGE))
        await case.store.request_cancel(pending.id, ANONYMOUS)
        await case.store.delete(deleted.id, ANONYMOUS)
        view = await case.store.queue(None)
        assert (view.lines, view.oldest_pending_seconds) == ([], None)

    @on_event_loop
    async def test_the_oldest_is_the_task_that_became_due_first(self, case: Case) -> None:
        async def oldest(owner: str | None) -> float | None:
            return (await case.store.queue(owner)).oldest_pending_seconds

        await case.start(new_task(owner="alice"))
        await case.submit(new_task(owner="alice", delay_seconds=5))
        case.clock.advance(3)
        await case.submit(new_task(owner="bob", head_start_seconds=600))
        assert [await oldest("alice"), await oldest("bob")] == [None, 0]
        case.clock.advance(4)
        assert [await oldest("alice"), await oldest("bob"), await oldest(None)] == [2, 4, 4]

    # --- the backlog -----------------------------------------------------------------------------

    @on_event_loop
    async def test_the_backlog_is_how_long_the_next_task_has_been_due(self, case: Case) -> None:
        assert await case.store.backlog_seconds() == 0
        await case.submit(new_task(delay_seconds=2))
        assert await case.store.backlog_seconds() == 0
        case.clock.advance(5)
        assert await case.store.backlog_seconds() == pytest.approx(3)
        await case.submit(new_task(head_start_seconds=600))
        case.clock.advance(1)
        assert await case.store.backlog_seconds() == pytest.approx(1)
        await case.claim(9)
        assert await case.store.backlog_seconds() == 0

    @on_event_loop
    async def test_the_longest_backlog_of_several_executors_counts(self, case: Case) -> None:
        for executor in ("one", "two", "three"):
            await case.submit(new_task(executor=executor))
            case.clock.advance(5)
        await case.claim(executor="one")
        assert await case.store.backlog_seconds() == pytest.approx(10)

    # --- who works -------------------------------------------------------------------------------

    @on_event_loop
    async def test_workers_are_counted_by_what_they_said_last(self, case: Case) -> None:
        await case.store.announce("worker-1", ["echo", "llama"], seconds=20)
        await case.store.announce("worker-2", ["gone"], seconds=20)
        await case.store.announce("worker-2", ["echo"], seconds=20)
        assert (await case.store.queue("alice")).workers == {"echo": 2, "llama": 1}

    @on_event_loop
    async def test_a_worker_that_says_nothing_more_is_not_counted(self, case: Case) -> None:
        await case.store.announce("worker-1", ["echo"], seconds=20)
        await case.store.announce("worker-2", ["llama"], seconds=20)
        case.clock.advance(15)
        await case.store.announce("worker-1", ["echo"], seconds=20)
        case.clock.advance(6)
        assert (await case.store.queue(None)).workers == {"echo": 1}
