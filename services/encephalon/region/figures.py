"""What a region shows to Prometheus, per version of its network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from encephalon.core.metrics import Count, Counters, Gauge, Histogram, Histograms

__all__ = ["Figures", "show_mailbox"]

LABELS = ("region", "network", "version")
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

REQUESTS = Counters("encephalon_region_requests", "Requests by outcome (OK or the status).", [*LABELS, "outcome"])
QUEUE = Histograms("encephalon_region_queue_seconds", "Time that a request waited in the mailbox.", LABELS)
COMPUTE = Histograms("encephalon_region_compute_seconds", "Time that a batch was computed.", LABELS)
BATCH = Histograms("encephalon_region_batch_rows", "Rows that went through the network together.", LABELS, ROWS)
WAITING = Gauge("encephalon_region_mailbox_messages", "Messages that wait.", ["region"])


def show_mailbox(region: str, read: Callable[[], float]) -> None:
    WAITING.show(region, read=read)


@dataclass(slots=True)
class Figures:
    """The children of one version, looked up once."""

    labels: tuple[str, str, str]
    queue: Histogram
    compute: Histogram
    batch: Histogram
    ok: Count
    gone: bool = False

    @classmethod
    def of(cls, region: str, network: str, version: str) -> Figures:
        labels = (region, network, version)
        return cls(
            labels,
            QUEUE.labels(*labels),
            COMPUTE.labels(*labels),
            BATCH.labels(*labels),
            REQUESTS.labels(*labels, "OK"),
        )

    def failed(self, outcome: str) -> None:
        if not self.gone:
            REQUESTS.labels(*self.labels, outcome).value += 1

    def forget(self) -> None:
        """A version that is gone is shown no more, or each swap would leave its figures behind for ever."""
        self.gone = True
        for metric in (QUEUE, COMPUTE, BATCH, REQUESTS):
            metric.remove(*self.labels)
