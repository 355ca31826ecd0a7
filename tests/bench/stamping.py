"""An executor whose answer is the moment at which it began: wall clock, in seconds."""

import time
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import ClassVar, Self

from msgspec import Struct

from domain.inference import InferenceRequest, InferenceResult, Piece


class NoOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing can be chosen."""


class StampingExecutor:
    """Tells when the attempt really began: later than `started_at`, which the claim sets."""

    options_type: ClassVar[type[Struct]] = NoOptions

    def __init__(self, _options: NoOptions) -> None:
        """Hold nothing."""

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

    async def run(self, _request: InferenceRequest) -> AsyncGenerator[Piece, None]:
        yield InferenceResult(time.time())
