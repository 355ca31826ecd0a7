"""What keeps a store in order beside the work: vanished workers, deadlines, old tasks, its health.

Four loops that know nothing of each other, so that one which fails holds up no other.
"""

import asyncio
from typing import Final

import structlog
from msgspec import Struct

from domain.errors import StorageFull
from domain.ports import Reclaimed, Store
from domain.retention import RetentionPolicy
from entrypoints.readiness import Readiness
from entrypoints.worker.loop import repeat

BATCH: Final = 100
"""Tasks that one step touches at most, so that no claim waits long behind it."""

_PROBE_EVERY_SECONDS = 1.0
_PROBE_LIMIT_SECONDS = 2.0

log = structlog.get_logger()


class MaintenanceOptions(Struct, frozen=True, kw_only=True):
    """How often, and by which rules."""

    retention: RetentionPolicy
    sweep_seconds: float
    poll_seconds: float
    max_crashes: int


class Maintenance:
    """Reclaims, expires, sweeps and probes until cancelled; the first time at once."""

    def __init__(self, store: Store, options: MaintenanceOptions, readiness: Readiness) -> None:
        self._store = store
        self._options = options
        self._readiness = readiness

    async def run(self) -> None:
        """Keep the four loops going."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(repeat("reclaim", self._reclaim, self._readiness))
            loops.create_task(repeat("expire", self._expire, self._readiness))
            loops.create_task(repeat("sweep", self._sweep, self._readiness))
            loops.create_task(repeat("probe", self._probe, self._readiness))

    async def _reclaim(self) -> float:
        reclaimed = await self._store.reclaim(self._options.max_crashes, BATCH)
        for lost in reclaimed:
            _report(lost)
        return 0.0 if len(reclaimed) == BATCH else self._options.poll_seconds

    async def _expire(self) -> float:
        expired = await self._store.expire(BATCH)
        if expired:
            log.info("deadlines_passed", count=expired)
        return 0.0 if expired == BATCH else self._options.poll_seconds

    async def _sweep(self) -> float:
        removed = await self._store.purge(self._options.retention, BATCH)
        if removed:
            log.debug("tasks_removed", count=removed)
        return 0.0 if removed == BATCH else self._options.sweep_seconds

    async def _probe(self) -> float:
        try:
            async with asyncio.timeout(_PROBE_LIMIT_SECONDS):
                await self._store.check()
        except StorageFull as error:
            self._readiness.clear("store")
            self._readiness.fault("storage", str(error))
        except Exception as error:  # noqa: BLE001 - whichever way it fails, it does not work
            self._readiness.fault("store", str(error) or "the store does not answer")
        else:
            self._readiness.clear("store")
            self._readiness.clear("storage")
        return _PROBE_EVERY_SECONDS


def _report(lost: Reclaimed) -> None:
    log.warning(
        "worker_lost",
        task_id=lost.fence.task_id,
        attempt=lost.fence.attempt,
        status=lost.status.value,
    )
