"""What a shard shows to Prometheus, beside what every server shows."""

from __future__ import annotations

from encephalon.core.metrics import Count, Counters, Gauge

__all__ = [
    "APPLY_SECONDS",
    "CHECKPOINTS",
    "DATA_BYTES",
    "HELD_BYTES",
    "RECEIVED",
    "REDUCE_SECONDS",
    "SENT",
    "UPDATES",
    "VERSION",
]

UPDATES = Counters("encephalon_shard_updates", "Updates that were decided, by decision.", ["decision"])
CHECKPOINTS = Counters("encephalon_shard_checkpoints", "Pieces of checkpoints, by how it went.", ["outcome"])
DATA_BYTES = Counters("encephalon_shard_data_bytes", "Bytes of gradients and parameters.", ["direction"])
SECONDS = Counters("encephalon_shard_seconds", "Seconds of work, by what it was.", ["work"])
HELD_BYTES = Gauge(
    "encephalon_shard_held_bytes", "Bytes in memory: parameters and slots, contributions that wait.", ["what"]
)
VERSION = Gauge("encephalon_shard_version", "Updates that were decided since the run began.")

RECEIVED: Count = DATA_BYTES.labels("received")
"""Of contributions; the data plane counts."""
SENT: Count = DATA_BYTES.labels("sent")
REDUCE_SECONDS: Count = SECONDS.labels("reduce")
APPLY_SECONDS: Count = SECONDS.labels("apply")
