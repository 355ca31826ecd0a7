"""Calls that wait at the same time share one statement: round trips are what PostgreSQL costs."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from domain.errors import StoreUnavailable

_PATIENCE_SECONDS: Final = 10.0
_MOST_WAITING: Final = 10_000

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class SharedCall(Generic[Request, Answer]):
    """Turns many small calls into few large ones, without ever waiting for company.

    What arrives while a call is under way is the next one, up to `most` requests. A call that
    fails fails for all that share it. A caller that goes away takes its request along, unless that
    is on its way: then it happens all the same.
    """

    def __init__(
        self, call: Callable[[Sequence[Request]], Awaitable[Sequence[Answer]]], most: int
    ) -> None:
        """`call` answers each request, in order."""
        self._call = call
        self._most = most
        self._waiting: list[tuple[Request, asyncio.Future[Answer]]] = []
        self._running: asyncio.Task[None] | None = None

    async def __call__(self, request: Request) -> Answer:
        """Answer this request, together with those that wait beside it.

        Raises `StoreUnavailable` when too many wait already, or no answer comes for ten seconds.
        """
        if len(self._waiting) >= _MOST_WAITING:
            raise StoreUnavailable(f"{_MOST_WAITING} calls wait for it already")
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, answer))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return await answer
        except TimeoutError as error:
            raise StoreUnavailable(f"no answer for {_PATIENCE_SECONDS:g} seconds") from error

    async def aclose(self) -> None:
        """Wait until everything that was asked for has been answered."""
        if self._running is not None:
            await self._running

    async def _run(self) -> None:
        while batch := self._next_batch():
            await self._answer(batch)
        self._running = None

    def _next_batch(self) -> list[tuple[Request, asyncio.Future[Answer]]]:
        waiting = [(request, answer) for request, answer in self._waiting if not answer.done()]
        self._waiting = waiting[self._most :]
        return waiting[: self._most]

    async def _answer(self, batch: list[tuple[Request, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._call([request for request, _ in batch])
        except Exception as error:  # noqa: BLE001 - handed on to everybody who waits for it
            for _, waiting in batch:
                if not waiting.done():
                    waiting.set_exception(error)
            return
        for (_, waiting), answer in zip(batch, answers, strict=True):
            if not waiting.done():
                waiting.set_result(answer)
