"""Tasks, found among many, a page at a time."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest
from msgspec.structs import replace

from adapters.testing.store_case import RESULT, USAGE, Case, ids, new_task
from adapters.testing.store_contract.base import Contract, on_event_loop
from domain.instants import after
from domain.ports import Completed
from domain.query import ROWS_PER_PAGE, Found, Page, TaskQuery
from domain.task import ANONYMOUS, NewTask, Task, TaskStatus

BOTH_ORDERS: Final = pytest.mark.parametrize("newest_first", [True, False])
BEGIN: Final = 1_700_000_000_000_000
"""When the clock of a case starts; `many` creates a task every second from then on."""

FILTERS: Final[dict[str, tuple[dict[str, Any], Callable[[Task], bool]]]] = {
    "nothing": ({}, lambda _: True),
    "one status": (
        {"statuses": frozenset({TaskStatus.PENDING})},
        lambda task: task.status is TaskStatus.PENDING,
    ),
    "statuses": (
        {"statuses": frozenset({TaskStatus.RUNNING, TaskStatus.CANCELLED})},
        lambda task: task.status in {TaskStatus.RUNNING, TaskStatus.CANCELLED},
    ),
    "executor": ({"executor": "other"}, lambda task: task.executor == "other"),
    "model": ({"model": "m"}, lambda task: task.model == "m"),
    "created after": (
        {"created_after": after(BEGIN, 3)},
        lambda task: task.created_at > after(BEGIN, 3),
    ),
    "created before": (
        {"created_before": after(BEGIN, 3)},
        lambda task: task.created_at < after(BEGIN, 3),
    ),
    "all at once": (
        {
            "statuses": frozenset({TaskStatus.PENDING}),
            "executor": "other",
            "model": "m",
            "created_after": BEGIN,
            "created_before": after(BEGIN, 5),
        },
        lambda task: (
            task.status is TaskStatus.PENDING
            and (task.executor, task.model) == ("other", "m")
            and BEGIN < task.created_at < after(BEGIN, 5)
        ),
    ),
}


def query(**asked: Any) -> TaskQuery:
    """A query of the usual owner."""
    return TaskQuery(**{"owner": ANONYMOUS, **asked})


def a_few() -> list[NewTask]:
    """Two executors, two models, in each combination."""
    pairs = [(executor, model) for executor in ("echo", "other") for model in (None, "m")]
    return [new_task(executor=executor, model=model) for executor, model in pairs]


async def many(case: Case) -> list[Task]:
    """Tasks of all kinds in all states, four created at each second, in order of creation."""
    for _ in range(6):
        await case.submit(*a_few())
        case.clock.advance(1)
    claims = await case.claim(6)
    await case.store.settle([Completed(claim.fence, RESULT, USAGE) for claim in claims[:3]])
    await case.store.request_cancel(claims[3].task.id, ANONYMOUS)
    found = (await case.store.find(query(newest_first=False, limit=100))).found
    for one in found[-3:]:
        await case.store.request_cancel(one.task.id, ANONYMOUS)
    return [await case.task(one.task.id) for one in found]


async def nothing_happens(_: list[Found]) -> None:
    """Between two pages."""


async def walk(
    case: Case,
    asked: TaskQuery,
    in_between: Callable[[list[Found]], Awaitable[None]] = nothing_happens,
) -> list[Task]:
    """All tasks of all pages, in their order. `in_between` is given each page that was read."""
    tasks: list[Task] = []
    while True:
        page = await case.store.find(asked)
        assert len(page.found) <= asked.limit
        tasks += [one.task for one in page.found]
        if page.next is None:
            return tasks
        await in_between(page.found)
        asked = replace(asked, start=page.next)


class Listing(Contract):
    """Tasks, found among many, a page at a time."""

    @BOTH_ORDERS
    @on_event_loop
    async def test_tasks_are_found_in_the_order_of_creation_ties_by_acceptance(
        self, case: Case, newest_first: bool
    ) -> None:
        accepted: list[Task] = []
        for _ in range(3):
            accepted += await case.submit(*(new_task() for _ in range(3)))
            case.clock.advance(1)
        page = await case.store.find(query(newest_first=newest_first))
        expected = accepted[::-1] if newest_first else accepted
        assert page == Page([Found(task, None) for task in expected], None)

    @pytest.mark.parametrize("filtered", FILTERS)
    @BOTH_ORDERS
    @on_event_loop
    async def test_exactly_the_tasks_that_match_are_found(
        self, case: Case, filtered: str, newest_first: bool
    ) -> None:
        changes, matches = FILTERS[filtered]
        expected = [task.id for task in await many(case) if matches(task)]
        assert expected
        found = await walk(case, query(newest_first=newest_first, limit=3, **changes))
        assert ids(found) == (expected[::-1] if newest_first else expected)

    @on_event_loop
    async def test_tasks_are_found_by_their_owner_only(self, case: Case) -> None:
        mine, _ = await case.submit(new_task(owner="alice"), new_task(owner="bob"))
        assert await walk(case, query(owner="alice")) == [mine]
        for stranger in ("", "ALICE", ANONYMOUS):
            assert await case.store.find(query(owner=stranger)) == Page([], None)

    @BOTH_ORDERS
    @on_event_loop
    async def test_without_an_owner_the_tasks_of_all_are_found_in_one_order(
        self, case: Case, newest_first: bool
    ) -> None:
        accepted: list[Task] = []
        for second in range(4):
            news = [new_task(owner=owner) for owner in ("bob", "alice", "carol", "bob")]
            accepted += await case.submit(*news[second:])
            case.clock.advance(1)
        found = await walk(case, query(owner=None, newest_first=newest_first, limit=3))
        assert found == (accepted[::-1] if newest_first else accepted)

    @pytest.mark.parametrize("limit", [1, 4, 5, 6])
    @on_event_loop
    async def test_a_page_has_so_many_tasks_and_says_whether_more_follow(
        self, case: Case, limit: int
    ) -> None:
        tasks = await case.submit(*(new_task() for _ in range(5)))
        page = await case.store.find(query(newest_first=False, limit=limit))
        assert [one.task for one in page.found] == tasks[:limit]
        assert (page.next is None) == (limit >= 5)
        assert await walk(case, query(newest_first=False, limit=limit)) == tasks

    @BOTH_ORDERS
    @on_event_loop
    async def test_a_full_page_after_which_nothing_matches_is_the_last(
        self, case: Case, newest_first: bool
    ) -> None:
        news = [new_task(executor=name) for name in ("echo", "rare", "rare", "echo")]
        tasks = await case.submit(*news)
        page = await case.store.find(query(executor="rare", newest_first=newest_first, limit=2))
        assert {one.task.id for one in page.found} == set(ids(tasks[1:3]))
        assert page.next is None

    @BOTH_ORDERS
    @on_event_loop
    async def test_what_matches_throughout_a_walk_is_found_once_whatever_happens_meanwhile(
        self, case: Case, newest_first: bool
    ) -> None:
        tasks = await case.submit(*(new_task() for _ in range(12)))
        deleted: list[str] = []

        async def meddle(page: list[Found]) -> None:
            case.clock.advance(1)
            await case.finish(new_task(head_start_seconds=600))
            [claim] = await case.claim()
            await case.settle(Completed(claim.fence, RESULT, USAGE))
            for task in (page[-1].task, tasks[len(deleted) % 2 - 1]):
                deleted.append(task.id)
                await case.store.delete(task.id, ANONYMOUS)

        found = ids(await walk(case, query(newest_first=newest_first, limit=3), meddle))
        assert len(found) == len(set(found))
        assert {*ids(tasks)} - {*deleted} <= {*found}

    @on_event_loop
    async def test_a_task_that_matches_no_more_is_on_no_later_page(self, case: Case) -> None:
        pending = query(statuses=frozenset({TaskStatus.PENDING}), newest_first=False, limit=2)
        tasks = await case.submit(*(new_task() for _ in range(6)))

        async def cancel_the_last(_: list[Found]) -> None:
            await case.store.request_cancel(tasks[-1].id, ANONYMOUS)

        assert await walk(case, pending, cancel_the_last) == tasks[:-1]

    @pytest.mark.parametrize("owner", [ANONYMOUS, None])
    @on_event_loop
    async def test_a_page_that_read_enough_is_short_and_the_next_goes_on(
        self, case: Case, owner: str | None
    ) -> None:
        [first] = await case.submit(new_task(executor="rare"))
        await case.submit(*(new_task() for _ in range(ROWS_PER_PAGE)))
        [last] = await case.submit(new_task(executor="rare"))
        page = await case.store.find(query(owner=owner, executor="rare"))
        assert page.found == [Found(last, None)]
        assert page.next is not None
        assert await walk(case, query(owner=owner, executor="rare")) == [last, first]

    @on_event_loop
    async def test_results_and_inputs_are_shown_only_where_they_are_asked_for(
        self, case: Case
    ) -> None:
        text = b'"a\\u0000b"'
        [done] = await case.finish(new_task(input=text))
        without = replace(done, result=None)
        for with_result in (False, True):
            for with_input in (False, True):
                asked = query(with_result=with_result, with_input=with_input)
                assert (await case.store.find(asked)).found == [
                    Found(done if with_result else without, text if with_input else None)
                ]

    @on_event_loop
    async def test_a_removed_task_is_found_no_more(self, case: Case) -> None:
        kept, deleted = await case.submit(new_task(), new_task())
        await case.store.delete(deleted.id, ANONYMOUS)
        assert await walk(case, query()) == [kept]
