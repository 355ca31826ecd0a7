"""What clients were answered, and how long it took."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from entrypoints.metrics.tallies import Labels, Timing, histogram

NO_ROUTE: Final = "none"
_KNOWN: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Requests(Collector):
    """Counts and times the requests of a process; nothing that a client makes up is a label."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._timings: dict[tuple[str, str, int], Timing] = {}
        registry.register(self)

    def add(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request is over.

        `route` is the template of its path, `NO_ROUTE` where it was refused before it had one;
        `status` 0: nothing was answered.
        """
        timing = self._timings.get((method, route, status))
        if timing is None:
            known = method if method in _KNOWN else "other"
            timing = self._timings.setdefault((known, route, status), Timing())
        timing.add(seconds)

    def collect(self) -> Iterator[Metric]:
        """See `Collector.collect`."""
        answered = CounterMetricFamily(
            "task_agent_requests",
            "Requests, by the template of their path and the status of their answer.",
            labels=["method", "route", "status"],
        )
        took: defaultdict[Labels, Timing] = defaultdict(Timing)
        for (method, route, status), timing in self._timings.items():
            answered.add_metric([method, route, str(status)], timing.times)
            took[method, route] += timing
        yield answered
        yield histogram(
            "task_agent_request_seconds",
            "How long requests took; long polls and streams wait for something.",
            ["method", "route"],
            took,
        )
