"""What can be seen of tasks, one by one and all together."""

import uuid

import pytest

from adapters.testing.store_case import JSON_TEXTS, REACHABLE, Case, ids, new_task
from adapters.testing.store_contract.base import Contract, on_event_loop
from domain.ports import Payload, Standing, TaskCounts
from domain.task import ANONYMOUS


class Reading(Contract):
    """What can be seen of tasks, one by one and all together."""

    @pytest.mark.parametrize(
        "task_id", ["", "no-uuid", "\0", "'; --", "é" * 5_000, str(uuid.UUID(int=7))]
    )
    @on_event_loop
    async def test_an_unknown_id_finds_nothing(self, case: Case, task_id: str) -> None:
        await case.submit()
        assert await case.store.get(task_id, ANONYMOUS) is None
        assert await case.store.payload(task_id, ANONYMOUS) is None
        assert await case.store.request_cancel(task_id, ANONYMOUS) is None
        assert not await case.store.delete(task_id, ANONYMOUS)

    @on_event_loop
    async def test_a_task_is_found_by_its_owner_only(self, case: Case) -> None:
        [task] = await case.submit(new_task(owner="alice"))
        assert await case.store.get(task.id, "alice") == task
        for stranger in ("bob", "", "ALICE", ANONYMOUS):
            assert await case.store.get(task.id, stranger) is None
            assert await case.store.payload(task.id, stranger) is None

    @on_event_loop
    async def test_without_an_owner_every_task_is_found(self, case: Case) -> None:
        for task in await case.submit(new_task(owner="alice"), new_task(owner="bob")):
            assert await case.store.get(task.id, None) == task
            assert await case.store.payload(task.id, None) == Payload(b'"hello"', b"{}")

    @on_event_loop
    async def test_a_payload_is_as_it_was_submitted_whatever_became_of_the_task(
        self, case: Case
    ) -> None:
        news = [new_task(input=text, options=b'{"o":%s}' % text) for text in JSON_TEXTS.values()]
        await case.finish(*news)
        for new in news:
            assert await case.store.payload(new.id, ANONYMOUS) == Payload(new.input, new.options)

    @on_event_loop
    async def test_counts_are_of_all_owners_and_executors(self, case: Case) -> None:
        await case.submit(new_task(owner="alice"), new_task(executor="other"), new_task())
        assert await case.store.counts() == TaskCounts(pending=3)

    @on_event_loop
    async def test_standings_tell_how_tasks_stand_that_are_there(self, case: Case) -> None:
        tasks = [(await case.in_status(status))[0] for status in REACHABLE]
        standings = await case.store.standings([new_task().id, *ids(tasks)])
        assert standings == {one.id: Standing(one.status, one.attempt, 0) for one in tasks}
        assert await case.store.standings([]) == {}
