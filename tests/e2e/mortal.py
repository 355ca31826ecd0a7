"""An executor for the tests of cancels; they name it in the settings of a service."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from typing import Self

from msgspec import Struct

from domain.inference import InferenceRequest, InferenceResult, Piece


class NoOptions(Struct, frozen=True, forbid_unknown_fields=True):
    pass


class MortalExecutor:
    """Works for a minute on the first attempt of a task. To cancel that kills the process."""

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
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                os.kill(os.getpid(), signal.SIGKILL)
        yield InferenceResult(f"attempt {request.attempt}")
