"""What a worker shows to Prometheus."""

from __future__ import annotations

from encephalon.core.metrics import Counters, Histograms

__all__ = ["BYTES", "COMPUTE_SECONDS", "SAMPLES", "SHARES", "SHARE_SECONDS"]

SAMPLES = Counters("encephalon_worker_samples", "Samples that were computed, by kind of share.", ["kind"])
SHARES = Counters("encephalon_worker_shares", "Shares by kind and how they ended.", ["kind", "outcome"])
BYTES = Counters("encephalon_worker_bytes", "Bytes to (sent) and from (received) the shards.", ["direction"])
COMPUTE_SECONDS = Histograms("encephalon_worker_compute_seconds", "Forward and backward passes of a share.")
SHARE_SECONDS = Histograms("encephalon_worker_share_seconds", "From the beginning of a share to the end of its push.")
