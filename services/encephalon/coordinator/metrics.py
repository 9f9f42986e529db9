"""What the coordinator shows to Prometheus. Children are bound once per brain and region, so that counting is cheap."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from encephalon.core.metrics import Count, Counters, Gauge, Histogram, Histograms

__all__ = ["BrainMetrics", "RegionMetrics"]

BRAIN = ("brain",)
REGION = ("brain", "region")

BRAIN_SECONDS = Histograms("encephalon_brain_seconds", "Time of a request, from its admission to its answer.", BRAIN)
BRAIN_FAILURES = Counters("encephalon_brain_failures", "Requests that failed, by reason.", (*BRAIN, "reason"))
BRAIN_INCOMPLETE = Counters("encephalon_brain_incomplete", "Answers without some region.", BRAIN)
REGION_SECONDS = Histograms(
    "encephalon_region_call_seconds", "Time of an activation, with retries, as seen here.", REGION
)
REGION_QUEUE = Histograms(
    "encephalon_region_call_queue_seconds", "Time in the region's mailbox, as the region says.", REGION
)
REGION_FAILURES = Counters(
    "encephalon_region_call_failures", "Activations that failed, by reason.", (*REGION, "reason")
)
REGION_BYTES = Counters("encephalon_region_call_bytes", "Bytes of tensors sent and received.", (*REGION, "direction"))
REGION_RETRIES = Counters("encephalon_region_call_retries", "Activations sent again.", REGION)
REGION_HEDGES = Counters("encephalon_region_call_hedges", "Activations sent to a second replica.", REGION)
REGION_EJECTIONS = Counters("encephalon_region_ejections", "Replicas set aside after failures.", REGION)
REPLICAS = Gauge("encephalon_region_replicas", "Replicas that take requests.", REGION)
shown: dict[tuple[str, str], RegionMetrics] = {}
"""Whose gauges are read: of two links of a region, while a brain is replaced, the one in service."""
BREAKER = Gauge("encephalon_region_breaker_open", "1 while requests to the region are refused.", REGION)


class BrainMetrics:
    """Of one brain, over all its versions."""

    def __init__(self, brain: str) -> None:
        self.brain = brain
        self.seconds: Histogram = BRAIN_SECONDS.labels(brain)
        self.incomplete: Count = BRAIN_INCOMPLETE.labels(brain)

    def answered(self, seconds: float, *, incomplete: bool) -> None:
        self.seconds.observe(seconds)
        if incomplete:
            self.incomplete.value += 1

    def failed(self, reason: str) -> None:
        BRAIN_FAILURES.labels(self.brain, reason).value += 1


class RegionMetrics:
    """Of one region of one brain, with the recent latencies for DescribeBrain."""

    RECENT = 512

    def __init__(self, brain: str, region: str) -> None:
        self.labels = (brain, region)
        self.seconds: Histogram = REGION_SECONDS.labels(brain, region)
        self.queue: Histogram = REGION_QUEUE.labels(brain, region)
        self.sent: Count = REGION_BYTES.labels(brain, region, "sent")
        self.received: Count = REGION_BYTES.labels(brain, region, "received")
        self.retries: Count = REGION_RETRIES.labels(brain, region)
        self.hedges: Count = REGION_HEDGES.labels(brain, region)
        self.ejections: Count = REGION_EJECTIONS.labels(brain, region)
        self.requests = 0
        self.failures = 0
        self._recent: deque[float] = deque(maxlen=self.RECENT)

    def answered(self, seconds: float) -> None:
        self.requests += 1
        self.seconds.observe(seconds)
        self._recent.append(seconds)

    def failed(self, reason: str) -> None:
        self.requests += 1
        self.failures += 1
        REGION_FAILURES.labels(*self.labels, reason).value += 1

    def quantile_ms(self, share: float) -> float:
        """Of the recent answers, milliseconds; 0 when there is none."""
        known = sorted(self._recent)
        return known[min(int(share * len(known)), len(known) - 1)] * 1000 if known else 0.0

    def show(self, replicas: Callable[[], float], breaker: Callable[[], float]) -> None:
        """Instead of what another link of the region has shown."""
        shown[self.labels] = self
        REPLICAS.show(*self.labels, read=replicas)
        BREAKER.show(*self.labels, read=breaker)

    def hide(self) -> None:
        """Harmless when another link of the region is shown by now."""
        if shown.get(self.labels) is self:
            del shown[self.labels]
            REPLICAS.remove(*self.labels)
            BREAKER.remove(*self.labels)
