"""Pending tasks whose executor is gone."""

from adapters.testing.store_case import BUSY, RESULT, USAGE, Case, ids, new_task
from adapters.testing.store_contract.base import Contract, on_event_loop
from domain.inference import Routes
from domain.ports import Completed, Retry


class Rerouting(Contract):
    """Pending tasks whose executor is gone."""

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
