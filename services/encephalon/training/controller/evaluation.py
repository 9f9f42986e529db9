"""An evaluation that all workers do together: ranges of a split, and the sums over them in order."""

from __future__ import annotations

from collections.abc import Sequence

from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.training.controller.rounds import Part

__all__ = ["parts_of", "summed"]

SMALLEST = 64
"""Samples for which it pays to pull the parameters."""
PER_WORKER = 4
"""Ranges of each worker, so that a slow one does fewer; the cut depends on no speed, so that sums repeat."""


def parts_of(samples: int, workers: int) -> list[Part]:
    size = max(SMALLEST, -(-samples // (PER_WORKER * workers)))
    starts = range(0, samples, size)
    return [Part(rank, start, min(start + size, samples)) for rank, start in enumerate(starts)]


def summed(reports: Sequence[pb.ReportRequest], version: int, epoch: int, purpose: str) -> pb.Evaluation:
    samples = sum(report.samples for report in reports)
    correct: dict[str, int] = {}
    for report in reports:
        for output, count in report.correct.items():
            correct[output] = correct.get(output, 0) + count
    return pb.Evaluation(
        version=version,
        epoch=epoch,
        purpose=purpose,
        samples=samples,
        loss=sum(report.loss for report in reports) / max(1, samples),
        accuracy={output: count / max(1, samples) for output, count in correct.items()},
    )
