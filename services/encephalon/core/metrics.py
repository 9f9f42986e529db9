"""Prometheus metrics of a process, on a port of their own.

Hot paths count into `Count` and `Histogram`, which belong to one thread and cost a few hundred nanoseconds; a collector
reads them when Prometheus asks. Everything else may use prometheus_client's own metrics with `REGISTRY`.
"""

from __future__ import annotations

import asyncio
import contextlib
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from encephalon.core.errors import FailedPrecondition

__all__ = ["REGISTRY", "SECONDS", "Count", "Counters", "Gauge", "Histogram", "Histograms", "metrics_served"]

REGISTRY = CollectorRegistry()
"""What this process shows."""

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bucket bounds for latencies: from a colocated hop to the longest deadline that makes sense."""


class Count:
    """A number that only grows; owned by one thread."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0


class Histogram:
    """Counts values into buckets; owned by one thread."""

    __slots__ = ("bounds", "buckets", "total")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = tuple(bounds)
        self.buckets = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.buckets[bisect_left(self.bounds, value)] += 1
        self.total += value


M = TypeVar("M")


class _Labelled(Generic[M]):
    """Children of one metric by their label values. Look a child up once and keep it."""

    def __init__(self, name: str, description: str, labels: Sequence[str], make: Callable[[], M]) -> None:
        self._name, self._description, self._labels, self._make = name, description, tuple(labels), make
        self._children: dict[tuple[str, ...], M] = {}

    def labels(self, *values: str) -> M:
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = self._make()
        return child

    def remove(self, *values: str) -> None:
        """Forgets every child whose label values start with these."""
        for key in [key for key in self._children if key[: len(values)] == values]:
            del self._children[key]


class Counters(_Labelled[Count]):
    def __init__(
        self, name: str, description: str, labels: Sequence[str] = (), registry: CollectorRegistry = REGISTRY
    ) -> None:
        super().__init__(name, description, labels, Count)
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        return [CounterMetricFamily(self._name, self._description, labels=self._labels)]

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(self._name, self._description, labels=self._labels)
        for values, child in list(self._children.items()):
            family.add_metric(values, child.value)
        yield family


class Histograms(_Labelled[Histogram]):
    def __init__(
        self,
        name: str,
        description: str,
        labels: Sequence[str] = (),
        bounds: Sequence[float] = SECONDS,
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        super().__init__(name, description, labels, lambda: Histogram(bounds))
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        return [HistogramMetricFamily(self._name, self._description, labels=self._labels)]

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._name, self._description, labels=self._labels)
        for values, child in list(self._children.items()):
            family.add_metric(values, _cumulative(child), child.total)
        yield family


def _cumulative(histogram: Histogram) -> list[tuple[str, float]]:
    running, rows = 0, []
    for bound, count in zip([*map(str, histogram.bounds), "+Inf"], list(histogram.buckets), strict=True):
        running += count
        rows.append((bound, float(running)))
    return rows


class Gauge:
    """A number that is read when Prometheus asks, by calling `read`; one per combination of labels."""

    def __init__(
        self, name: str, description: str, labels: Sequence[str] = (), registry: CollectorRegistry = REGISTRY
    ) -> None:
        self._name, self._description, self._labels = name, description, tuple(labels)
        self._reads: dict[tuple[str, ...], Callable[[], float]] = {}
        registry.register(self)

    def show(self, *values: str, read: Callable[[], float]) -> None:
        self._reads[values] = read

    def remove(self, *values: str) -> None:
        self._reads.pop(values, None)

    def describe(self) -> Iterable[Metric]:
        return [GaugeMetricFamily(self._name, self._description, labels=self._labels)]

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(self._name, self._description, labels=self._labels)
        for values, read in list(self._reads.items()):
            family.add_metric(values, read())
        yield family


ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)


@contextlib.asynccontextmanager
async def metrics_served(
    port: int | None, host: str = "127.0.0.1", registry: CollectorRegistry = REGISTRY
) -> AsyncIterator[int | None]:
    """Serves `/metrics` over HTTP while the block lasts and gives the port (0 chooses a free one; None serves nothing).

    Raises `FailedPrecondition` when the port is taken.
    """
    if port is None:
        yield None
        return
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise FailedPrecondition(
            f"the metrics port {host}:{port} cannot be used: {error.strerror}; choose another", address=f"{host}:{port}"
        ) from error
    try:
        yield server.server_port
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        await asyncio.to_thread(thread.join)
