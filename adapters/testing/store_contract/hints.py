"""Who listens is told."""

import asyncio

import pytest

from adapters.testing.store_case import (
    PATIENCE,
    Case,
    new_task,
)
from adapters.testing.store_contract.base import Contract, on_event_loop
from domain.inference import Routes
from domain.task import Move


class Hints(Contract):
    """Who listens is told."""

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
        await asyncio.wait_for(told.wait(), PATIENCE)

    @on_event_loop
    async def test_a_listener_is_told_of_rerouted_tasks(self, case: Case) -> None:
        await case.submit(new_task(executor="gone"))
        told = asyncio.Event()
        case.store.on_work(told.set)
        await case.store.reroute(["echo"], Routes({}, fallback="echo"))
        await asyncio.wait_for(told.wait(), PATIENCE)

    @on_event_loop
    async def test_a_listener_that_was_ended_is_told_no_more(self, case: Case) -> None:
        ended, kept = asyncio.Event(), asyncio.Event()
        end = case.store.on_work(ended.set)
        case.store.on_work(kept.set)
        end()
        await case.submit()
        await asyncio.wait_for(kept.wait(), PATIENCE)
        assert not ended.is_set()
