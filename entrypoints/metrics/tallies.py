"""What is counted and timed on the way of every request, and told to Prometheus when it asks.

The library's own counters and histograms take a lock, and look their labels up, at every number:
together a seventh of a request's time. Here one thread writes, that of the event loop, so a number
is an addition; the library only tells it.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

_UP_TO_SECONDS: Final = (
    *[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05],
    *[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0],
)
_BOUNDS: Final = (*map(str, _UP_TO_SECONDS), "+Inf")

Labels = tuple[str, ...]


class Tally(Collector):
    """How often something happened, by labels."""

    def __init__(
        self,
        name: str,
        documentation: str,
        registry: CollectorRegistry,
        labels: Sequence[str] = (),
    ) -> None:
        self._about = name, documentation
        self._labels = labels
        self._counts: Counter[Labels] = Counter()
        if not labels:
            self.add(times=0)  # told also before it happened
        registry.register(self)

    def add(self, *labels: str, times: int = 1) -> None:
        """It happened, so often."""
        self._counts[labels] += times

    def collect(self) -> Iterator[Metric]:
        """See `Collector.collect`."""
        family = CounterMetricFamily(*self._about, labels=self._labels)
        for labels, count in self._counts.items():
            family.add_metric(labels, count)
        yield family


class Timing:
    """How long something took, each time."""

    __slots__ = ("_counts", "_seconds")

    def __init__(self) -> None:
        self._counts = [0] * len(_BOUNDS)
        self._seconds = 0.0

    def add(self, seconds: float) -> None:
        """It took so long."""
        self._counts[bisect_left(_UP_TO_SECONDS, seconds)] += 1
        self._seconds += seconds

    def __add__(self, other: "Timing") -> "Timing":
        both = Timing()
        both._counts = [*map(int.__add__, self._counts, other._counts)]
        both._seconds = self._seconds + other._seconds
        return both

    @property
    def times(self) -> int:
        """How often."""
        return sum(self._counts)

    def tell(self, family: HistogramMetricFamily, labels: Labels) -> None:
        """Add it to this family, under these labels."""
        buckets = zip(_BOUNDS, accumulate(self._counts), strict=True)
        family.add_metric(labels, list(buckets), self._seconds)


def histogram(
    name: str, documentation: str, labels: Sequence[str], timings: Mapping[Labels, Timing]
) -> Metric:
    """All of these, by their labels."""
    family = HistogramMetricFamily(name, documentation, labels=labels)
    for values, timing in timings.items():
        timing.tell(family, values)
    return family
