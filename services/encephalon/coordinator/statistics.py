"""Counts what a version of a brain did, as the protocol's ModelStatistics wants it."""

from __future__ import annotations

import time

from encephalon.core.inference import BatchStatistics, ModelStatistics

__all__ = ["count_failure", "count_success"]


def count_success(statistics: ModelStatistics, rows: int, nanoseconds: int) -> None:
    statistics.inference_count += rows
    statistics.execution_count += 1
    statistics.last_inference_ms = int(time.time() * 1000)
    statistics.success.add(nanoseconds)
    statistics.compute_infer.add(nanoseconds)
    batch = statistics.batches.get(rows)
    if batch is None:
        batch = statistics.batches[rows] = BatchStatistics(rows)
    batch.compute_infer.add(nanoseconds)


def count_failure(statistics: ModelStatistics, nanoseconds: int) -> None:
    statistics.fail.add(nanoseconds)
