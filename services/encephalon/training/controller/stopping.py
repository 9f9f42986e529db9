"""When learning has stopped to help."""

from __future__ import annotations

import math
from collections.abc import Sequence

from encephalon.api.training.v1 import training_pb2 as pb

__all__ = ["best_of", "exhausted"]


def best_of(evaluations: Sequence[pb.Evaluation]) -> pb.Evaluation | None:
    """With the lowest finite validation loss; the earliest of equals."""
    judged = [each for each in evaluations if each.purpose == "validation" and math.isfinite(each.loss)]
    return min(judged, key=lambda each: each.loss, default=None)


def exhausted(evaluations: Sequence[pb.Evaluation], patience: int | None) -> bool:
    """Whether the last `patience` validations were all no better than the best before them."""
    if patience is None:
        return False
    judged = [each for each in evaluations if each.purpose == "validation"]
    best = best_of(judged)
    since = len(judged) if best is None else len(judged) - 1 - judged.index(best)
    return since >= patience
