"""What becomes of an update that all shards have prepared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as ps
from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.training.controller.failures import RunFailed
from encephalon.training.runs import RunSettings

__all__ = ["Verdict", "metrics_of", "verdict_of"]


@dataclass(frozen=True, slots=True)
class Verdict:
    apply: bool
    scale: float
    norm: float
    """Of the gradient of all learned parameters, before it is clipped."""


def verdict_of(settings: RunSettings, prepared: Sequence[ps.PrepareResponse], workers: dict[int, str]) -> Verdict:
    """The same for all shards. workers: by rank. RunFailed, with worker, region and tensor, for a gradient that is not
    finite, unless the settings say to skip it."""
    squared = sum(response.squared_norm for response in prepared)
    bad = next((each for response in prepared for each in response.non_finite), None)
    if bad is not None or not math.isfinite(squared):
        if settings.non_finite == "skip":
            return Verdict(False, 1.0, math.nan)
        raise RunFailed(_sentence(bad, workers))
    norm = math.sqrt(max(0.0, squared))
    clipped = settings.clip_norm is not None and norm > settings.clip_norm
    return Verdict(True, (settings.clip_norm or 0.0) / norm if clipped else 1.0, norm)


def metrics_of(
    reports: Sequence[tuple[str, pb.ReportRequest]], verdict: Verdict, *, version: int, epoch: int
) -> pb.StepMetrics:
    """Of the shares of an update, by their workers."""
    samples = sum(report.samples for _, report in reports)
    metrics = pb.StepMetrics(
        version=version,
        epoch=epoch,
        samples=samples,
        loss=sum(report.loss for _, report in reports) / max(1, samples),
        gradient_norm=verdict.norm,
        skipped=not verdict.apply,
        bytes=sum(report.sent_bytes + report.received_bytes for _, report in reports),
    )
    for worker, report in reports:
        metrics.shares[worker] += report.samples
        metrics.compute_seconds[worker] += report.compute_seconds
    return metrics


def decision(run: str, generation: int, update: int, verdict: Verdict, note: pb.Consumed) -> ps.DecideRequest:
    return ps.DecideRequest(
        run=run,
        generation=generation,
        update=update,
        decision=ps.DecideRequest.DECISION_APPLY if verdict.apply else ps.DecideRequest.DECISION_SKIP,
        version=note.metrics.version,
        scale=verdict.scale,
        note=note.SerializeToString(),
    )


def _sentence(bad: ps.NonFinite | None, workers: dict[int, str]) -> str:
    if bad is None:
        return "the gradient is too large for its norm to be a number; begin a run with a lower learning rate"
    region, _, tensor = bad.tensor.partition("/")
    return (
        f"worker '{workers.get(bad.rank, '?')}' has a gradient that is not finite, in region '{region}', tensor "
        f"'{tensor}'; the run stops before it is applied; resume it with non_finite=skip to leave such "
        "updates out, or begin one with a lower learning rate"
    )
