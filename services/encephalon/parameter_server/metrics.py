"""What a shard shows to Prometheus, beside what every server shows."""

from __future__ import annotations

from encephalon.core.metrics import Count, Counters, Gauge

__all__ = [
    "APPLY_SECONDS",
    "CHECKPOINTS",
    "DATA_BYTES",
    "HELD_BYTES",
    "REDUCE_SECONDS",
    "UPDATES",
    "VERSION",
]

UPDATES = Counters("encephalon_shard_updates", "Updates that were decided, by decision.", ["decision"])
CHECKPOINTS = Counters("encephalon_shard_checkpoints", "Pieces of checkpoints, by how it went.", ["outcome"])
DATA_BYTES = Gauge("encephalon_shard_data_bytes", "Of gradients and parameters, since the start.", ["direction"])
SECONDS = Counters("encephalon_shard_seconds", "Seconds of work, by what it was.", ["work"])
HELD_BYTES = Gauge(
    "encephalon_shard_held_bytes", "Bytes in memory: parameters and slots, contributions that wait.", ["what"]
)
VERSION = Gauge("encephalon_shard_version", "Updates that were decided since the run began.")

REDUCE_SECONDS: Count = SECONDS.labels("reduce")
APPLY_SECONDS: Count = SECONDS.labels("apply")
