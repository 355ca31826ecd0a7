"""An executor for the tests of stopped workers; they name it in the settings of a service."""

import asyncio
import signal
import threading
from collections.abc import AsyncGenerator
from typing import Self

from msgspec import Struct

from domain.inference import InferenceRequest, InferenceResult, Piece


class NoOptions(Struct, frozen=True, forbid_unknown_fields=True):
    pass


class AbruptExecutor:
    """Stops its own process in the moment before the first attempt of a task has its result.

    So this result is the first thing that the process knows when it is continued. Later attempts
    take as long as the task's option `later_seconds` says.
    """

    options_type = NoOptions

    def __init__(self, options: NoOptions) -> None:
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def room(self) -> None:
        """See `Executor.room`."""

    async def check(self) -> None:
        """See `Executor.check`."""

    async def run(self, request: InferenceRequest) -> AsyncGenerator[Piece, None]:
        if request.attempt == 1:
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        else:
            await asyncio.sleep(request.options.get("later_seconds", 0))
        yield InferenceResult(f"attempt {request.attempt}")
