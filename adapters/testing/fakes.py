"""A clock and an executor that do exactly what a test tells them to."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from domain.inference import InferenceRequest, Piece
from domain.instants import after

Step = Piece | Exception | asyncio.Event


class FakeClock:
    """Time that stands still until a test moves it."""

    def __init__(self, now: int = 1_700_000_000_000_000, monotonic: float = 5_000.0) -> None:
        self._now = now
        self._monotonic = monotonic

    def now(self) -> int:
        """The wall clock, in microseconds since the epoch."""
        return self._now

    def monotonic(self) -> float:
        """Seconds since some fixed moment."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass, on both clocks."""
        self._now = after(self._now, seconds)
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward or (negative) back, while no time passes."""
        self._now = after(self._now, seconds)

    def restart_monotonic(self, seconds: float) -> None:
        """Count from another moment, as the clock of another process or boot may do."""
        self._monotonic = seconds


class ScriptedExecutor:
    """Plays one script per attempt, and the last script for all attempts that follow.

    A script is a list of steps: a chunk or result is yielded, an exception is raised, an event is
    waited for. `requests` are those that were begun (`started` is set by the first), `running`
    counts those not let go of yet, `left` is the room that it says it has.
    """

    def __init__(self, *scripts: Sequence[Step]) -> None:
        self._scripts = scripts
        self.left: int | None = None
        self.requests: list[InferenceRequest] = []
        self.started = asyncio.Event()
        self.running = 0

    def room(self) -> int | None:
        """See `Executor.room`."""
        return self.left

    async def check(self) -> None:
        """See `Executor.check`: it always would."""

    async def run(self, request: InferenceRequest) -> AsyncGenerator[Piece, None]:
        """Play the script of this attempt."""
        self.requests.append(request)
        self.running += 1
        self.started.set()
        try:
            for step in self._scripts[min(request.attempt, len(self._scripts)) - 1]:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, asyncio.Event):
                    await step.wait()
                else:
                    yield step
        finally:
            self.running -= 1
