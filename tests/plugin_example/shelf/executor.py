"""An executor that says everything louder."""

import asyncio
import re
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import ClassVar, Self

from msgspec import Struct

from domain.errors import InvalidInput, ResultTooLarge
from domain.inference import Chunk, InferenceRequest, InferenceResult, Piece


class ShoutOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """What may stand under `executors.<name>` beside `kind`, `models` and the limit."""

    ending: str = "!"


class ShoutExecutor:
    """Gives the input in capitals, word by word."""

    options_type: ClassVar[type[Struct]] = ShoutOptions

    def __init__(self, options: ShoutOptions) -> None:
        self._ending = options.ending

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def room(self) -> None:
        """See `Executor.room`."""

    async def check(self) -> None:
        """See `Executor.check`."""

    async def run(self, request: InferenceRequest) -> AsyncGenerator[Piece, None]:
        """See `Executor.run`. The task option `pause_seconds` is the time that each word takes."""
        if not isinstance(request.input, str):
            raise InvalidInput("only a text can be shouted")
        text = request.input.upper() + self._ending
        if len(text.encode()) > request.max_result_bytes:
            raise ResultTooLarge(request.max_result_bytes)
        for word in re.findall(r"\s*\S+\s*", text):
            await asyncio.sleep(request.options.get("pause_seconds", 0))
            yield Chunk(word)
        yield InferenceResult(text)
