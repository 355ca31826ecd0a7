"""A loop that outlives what its rounds meet, and shows that it lives."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from domain.errors import TaskAgentError
from entrypoints.readiness import Readiness

LONGEST_WAIT_SECONDS = 1.0
"""Nothing waits longer than this at a time, so that loops tick also when there is no work."""

_SHORTEST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0

log = structlog.get_logger()


async def repeat(
    name: str, one_round: Callable[[], Awaitable[float]], readiness: Readiness
) -> None:
    """Run rounds until cancelled; each answers after how many seconds it wants the next.

    The loop ticks at its start, after each round, and while it rests. A round that raises is
    logged; no tick follows, but a pause, which doubles up to a second while rounds go on raising.
    """
    pause = 0.0
    readiness.tick(name)
    while True:
        try:
            rest = await one_round()
        except Exception as error:  # noqa: BLE001 - whatever a round meets, the loop must go on
            _report(name, error)
            pause = min(_LONGEST_PAUSE_SECONDS, max(_SHORTEST_PAUSE_SECONDS, 2 * pause))
            await asyncio.sleep(pause)
        else:
            pause = 0.0
            await _rest(name, rest, readiness)


async def wait_for_wake(wake: asyncio.Event, seconds: float) -> None:
    """Return once `wake` is set, and clear it; or after so many seconds, or the longest wait.

    A timer that sets the event costs a tenth of what `asyncio.wait_for` does.
    """
    if not wake.is_set():
        longest = max(0.0, min(seconds, LONGEST_WAIT_SECONDS))
        timer = asyncio.get_running_loop().call_later(longest, wake.set)
        try:
            await wake.wait()
        finally:
            timer.cancel()
    wake.clear()


async def _rest(name: str, seconds: float, readiness: Readiness) -> None:
    until = asyncio.get_running_loop().time() + seconds
    readiness.tick(name)
    await asyncio.sleep(min(seconds, LONGEST_WAIT_SECONDS))
    while (left := until - asyncio.get_running_loop().time()) > 0:
        readiness.tick(name)
        await asyncio.sleep(min(left, LONGEST_WAIT_SECONDS))


def _report(name: str, error: Exception) -> None:
    if isinstance(error, TaskAgentError):
        log.warning("loop_failed", loop=name, error=str(error))
    else:
        log.error("loop_failed", loop=name, exc_info=error)
