"""Opens the executor: a child looks at the function first, for its module may do anything."""

import asyncio
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from adapters.executors.python_callable.frames import Setup
from adapters.executors.python_callable.in_process import InProcess
from adapters.executors.python_callable.outcome import worded
from adapters.executors.python_callable.pool import process_pool
from adapters.executors.python_callable.process import CannotStart, ChildProcess, start_child
from adapters.executors.python_callable.target import NotUsable, Target, found, is_async
from domain.errors import ExecutorUnusable
from domain.ports import Executor

_SMALLEST_MEMORY: Final = 64 * 1024 * 1024


class PythonCallableOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of a `python_callable` executor.

    `target` is called with `input`, `options` and, if it takes a third, a `Context`. `load`, if
    there is one, is called once before, without arguments: in each child process, or in this one
    for a coroutine function. `processes`: how many children there are, each of which runs one
    attempt at a time. `max_memory_bytes`: of one child; None: no limit. `start_timeout_seconds`:
    how long the imports of a child may take, and how long `load`.
    """

    target: str
    load: str | None = None
    processes: Annotated[int, Meta(ge=1, le=1_000)] = 1
    max_memory_bytes: Annotated[int, Meta(ge=_SMALLEST_MEMORY)] | None = None
    start_timeout_seconds: Annotated[float, Meta(gt=0)] = 300


class PythonCallableExecutor:
    """Runs a Python function: what is opened depends on which kind of function it is."""

    options_type = PythonCallableOptions

    def __init__(self, options: PythonCallableOptions) -> None:
        self._options = options
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> Executor:
        """Raises `ExecutorUnusable` where the function cannot be imported or called."""
        options = self._options
        setup = _setup_of(options)
        first = await self._first_child(setup)
        if first.is_async:
            await first.end()
            return await self._in_process()
        pool = process_pool(
            setup,
            first,
            processes=options.processes,
            start_timeout_seconds=options.start_timeout_seconds,
        )
        return await self._opened.enter_async_context(pool)

    async def __aexit__(self, *_: object) -> None:
        await self._opened.aclose()

    async def _first_child(self, setup: Setup) -> ChildProcess:
        limit = self._options.start_timeout_seconds
        try:
            async with asyncio.timeout(limit):
                return await start_child(setup)
        except CannotStart as error:
            reason = str(error) if error.option else f"cannot be imported: {error}"
            raise self._unusable(error.option or "target", reason) from error
        except TimeoutError as error:
            raise self._unusable("target", f"is not imported within {limit:g} seconds") from error

    async def _in_process(self) -> InProcess:
        option = "target"
        try:
            target = Target(self._options.target)
            option = "load"
            return InProcess(target, await _loaded(self._options.load))
        except NotUsable as error:
            raise self._unusable(option, str(error)) from error

    def _unusable(self, option: str, reason: str) -> ExecutorUnusable:
        return ExecutorUnusable(option, f"{getattr(self._options, option)!r} {reason}")


def _setup_of(options: PythonCallableOptions) -> Setup:
    return Setup(
        target=options.target,
        load=options.load,
        max_memory_bytes=options.max_memory_bytes,
        import_path=[str(Path(folder).resolve()) for folder in sys.path],
        service=os.getpid(),
    )


async def _loaded(load: str | None) -> Any:
    if load is None:
        return None
    function = found(load)
    try:
        return await (function() if is_async(function) else asyncio.to_thread(function))
    except Exception as error:
        raise NotUsable(f"raised {worded(error)}") from error
