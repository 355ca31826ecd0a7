"""A coroutine function in the service's own process, on its event loop.

It costs no process, and many attempts may wait for other services at once. It must not block: what
it holds up, it holds up for everybody.
"""

import asyncio
import contextlib
import inspect
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

import structlog

from adapters.executors.python_callable.context import Context
from adapters.executors.python_callable.outcome import TextOutput, failure_of, result_of
from adapters.executors.python_callable.target import Target
from domain.errors import ExecutorError
from domain.inference import (
    Chunk,
    InferenceRequest,
    InferenceResult,
    LogLine,
    Piece,
    Progress,
    encode_result,
)

_MOST_WAITING: Final = 100

log = structlog.get_logger()

Said = asyncio.Queue[Piece | ExecutorError]
"""What comes of an attempt, with its result or its error last."""


class InProcess:
    """Runs each attempt as a task beside the others."""

    def __init__(self, target: Target, loaded: Any) -> None:
        self._target = target
        self._loaded = loaded

    def room(self) -> None:
        """See `Executor.room`."""

    async def check(self) -> None:
        """See `Executor.check`."""

    async def run(self, request: InferenceRequest) -> AsyncGenerator[Piece, None]:
        """See `Executor.run`."""
        said: Said = asyncio.Queue(_MOST_WAITING)
        context = self._context(request, said)
        work = asyncio.create_task(self._work(request, context, said))
        try:
            while not isinstance(piece := await said.get(), InferenceResult):
                if isinstance(piece, ExecutorError):
                    raise piece
                yield piece
        finally:
            context.cancel()
            context.close()
            work.cancel()
            await asyncio.wait([work])
        yield piece

    def _context(self, request: InferenceRequest, said: Said) -> Context:
        loop, thread = asyncio.get_running_loop(), threading.get_ident()

        def add(piece: Progress | LogLine) -> None:
            with contextlib.suppress(asyncio.QueueFull):  # nobody listens, or not for so long
                said.put_nowait(piece)

        def say(piece: Progress | LogLine) -> None:
            if threading.get_ident() == thread:
                add(piece)
            else:
                loop.call_soon_threadsafe(add, piece)

        return Context(
            task_id=request.task_id,
            attempt=request.attempt,
            model=request.model,
            loaded=self._loaded,
            say=say,
        )

    async def _work(self, request: InferenceRequest, context: Context, said: Said) -> None:
        end: Piece | ExecutorError
        try:
            end = await self._result(request, context, said)
            encode_result(end, request.max_result_bytes)
        except BaseException as error:  # SystemExit would end the service
            if _is_cancelled():
                raise
            if not isinstance(error, ExecutorError):
                log.debug("callable_raised", task_id=request.task_id, exc_info=error)
            end = failure_of(error)
        await said.put(end)

    async def _result(
        self, request: InferenceRequest, context: Context, said: Said
    ) -> InferenceResult:
        given = self._target.call(request.input, dict(request.options), context)
        if not inspect.isasyncgen(given):
            return result_of(await given)
        output = TextOutput(request.max_result_bytes)
        texts: list[str] = []
        async with aclosing(given) as pieces:
            async for piece in pieces:
                texts.append(output.take(piece))
                await said.put(Chunk(texts[-1]))
        return InferenceResult("".join(texts))


def _is_cancelled() -> bool:
    """Whether it was us, and not the function, who cancelled the task that runs now."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
