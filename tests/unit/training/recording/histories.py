"""Histories as runs leave them."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.training.recording import History

__all__ = ["evaluation", "history", "step"]


def step(version: int, *, workers: Sequence[str] = ("worker-0", "worker-1"), loss: float = 1.0) -> pb.StepMetrics:
    return pb.StepMetrics(
        version=version,
        epoch=(version - 1) // 10,
        at_seconds=0.1 * version,
        seconds=0.1,
        samples=30 * len(workers),
        loss=loss,
        gradient_norm=1.0,
        learning_rate=1e-3,
        shares=dict.fromkeys(workers, 30),
        compute_seconds=dict.fromkeys(workers, 0.05),
        bytes=1 << 40,
    )


def evaluation(version: int, accuracy: float = 0.5, purpose: str = "validation") -> pb.Evaluation:
    return pb.Evaluation(
        version=version,
        purpose=purpose,
        samples=50,
        loss=1 - accuracy,
        accuracy={"digit": accuracy},
        at_seconds=version,
    )


def history(steps: int, *, workers: Sequence[str] = ("worker-0", "worker-1")) -> History:
    """With an evaluation after every tenth update, and a seventh update that was skipped, whose loss is not finite."""
    chance, found = random.Random(0), History()
    for version in range(1, steps + 1):
        line = step(version, workers=workers, loss=2 * math.exp(-version / 30) + chance.gauss(0, 0.05))
        if version == 7:
            line.loss, line.skipped = math.nan, True
        found.add(line)
        if version % 10 == 0:
            found.add(evaluation(version, 1 - math.exp(-version / 40)))
    return found
