"""What can be seen of tasks, one by one and all together."""

import uuid

import pytest

from adapters.testing.store_case import (
    Case,
    new_task,
)
from adapters.testing.store_contract.base import Contract, on_event_loop
from domain.ports import (
    TaskCounts,
)
from domain.task import ANONYMOUS


class Reading(Contract):
    """What can be seen of tasks, one by one and all together."""

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
