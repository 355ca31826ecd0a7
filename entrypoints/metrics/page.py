"""The page at `/metrics`."""

import asyncio
from collections.abc import Iterable, Iterator
from typing import Final

from msgspec.structs import asdict
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_text
from prometheus_client.registry import Collector

from domain.errors import StoreError
from domain.ports import QueueView, Store, TaskCounts
from entrypoints.metrics.requests import Requests
from entrypoints.metrics.store import MeasuredStore
from entrypoints.readiness import Readiness

STORE_SECONDS: Final = 2.0
"""How long the page waits for the store; beyond that it tells nothing of tasks."""


class Metrics:
    """All that is measured of one process. `store` is the store that is to be used from now on."""

    def __init__(self, store: Store, readiness: Readiness) -> None:
        self._registry = CollectorRegistry()
        self._readiness = readiness
        self.store = MeasuredStore(store, self._registry)
        self.requests = Requests(self._registry)

    async def page(self, accept: str) -> tuple[bytes, str]:
        """The page and its media type: OpenMetrics where this header accepts it, else plain text.

        Tasks are those of the store as of now, of all owners. Where it does not answer, the page
        tells all but that.
        """
        families = [_loop_ticks(self._readiness), *await self._of_tasks()]
        page = _Page(self._registry, families)
        if _accepts_openmetrics(accept):
            page_text: bytes = openmetrics_text(page)  # type: ignore[no-untyped-call] # it has no types
            return page_text, OPENMETRICS
        return generate_latest(page), CONTENT_TYPE_PLAIN_0_0_4

    async def _of_tasks(self) -> list[Metric]:
        try:
            async with asyncio.timeout(STORE_SECONDS):
                counts, queue = await self.store.counts(), await self.store.queue(None)
        except (StoreError, TimeoutError):
            return []
        return [_tasks(counts), _live_tasks(queue), _oldest_pending(queue), _tokens(queue)]


def _accepts_openmetrics(accept: str) -> bool:
    """The library's own `choose_encoder` raises for an odd version, and repeats what was sent."""
    accepted = {one.partition(";")[0].strip().lower() for one in accept.split(",")}
    return "application/openmetrics-text" in accepted


class _Page(Collector):
    """What was counted meanwhile, and what was looked up for this page."""

    def __init__(self, registry: CollectorRegistry, families: Iterable[Metric]) -> None:
        self._registry = registry
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._registry.collect()
        yield from self._families


def _loop_ticks(readiness: Readiness) -> Metric:
    family = CounterMetricFamily(
        "task_agent_loop_ticks", "Rounds of each loop of this process.", labels=["loop"]
    )
    for loop, ticks in readiness.ticks.items():
        family.add_metric([loop], ticks)
    return family


def _tasks(counts: TaskCounts) -> Metric:
    family = GaugeMetricFamily("task_agent_tasks", "Tasks in the store.", labels=["status"])
    for status, number in asdict(counts).items():
        family.add_metric([status], number)
    return family


def _live_tasks(queue: QueueView) -> Metric:
    family = GaugeMetricFamily(
        "task_agent_live_tasks",
        "Tasks that wait or run, by executor.",
        labels=["executor", "status"],
    )
    for executor in sorted({line.executor for line in queue.lines}):
        lines = [line for line in queue.lines if line.executor == executor]
        family.add_metric([executor, "pending"], sum(line.pending for line in lines))
        family.add_metric([executor, "running"], sum(line.running for line in lines))
    return family


def _oldest_pending(queue: QueueView) -> Metric:
    family = GaugeMetricFamily(
        "task_agent_oldest_pending_seconds",
        "For how long the task has been due that became due first; 0 where none is.",
    )
    family.add_metric([], queue.oldest_pending_seconds or 0.0)
    return family


def _tokens(queue: QueueView) -> Metric:
    family = CounterMetricFamily(
        "task_agent_tokens",
        "What completed tasks have cost, as their backends reported it.",
        labels=["executor", "kind"],
    )
    for executor in sorted({line.executor for line in queue.usage}):
        spent = [line.usage for line in queue.usage if line.executor == executor]
        family.add_metric([executor, "input"], sum(usage.input_tokens for usage in spent))
        family.add_metric([executor, "output"], sum(usage.output_tokens for usage in spent))
    return family
