"""What every system is asked: two identity networks side by side, then one that adds; FP32, two inputs per request."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

__all__ = ["BRAIN", "CALLERS", "INPUTS", "OUTPUT", "SIZES", "Cell", "Measurement", "payload"]

BRAIN = "pair"  # the name of the model, ensemble and brain alike
INPUTS = ("left", "right")
OUTPUT = "sum"
SIZES = (64, 1 << 20)  # bytes of each tensor
CALLERS = (1, 32)


@dataclass(frozen=True, slots=True)
class Cell:
    """One measured case: tensors of `nbytes` each, asked by `callers` closed loops at once."""

    nbytes: int
    callers: int

    @property
    def title(self) -> str:
        size = f"{self.nbytes} B" if self.nbytes < 1024 else f"{self.nbytes >> 20} MiB"
        return f"{size}, {self.callers} caller{'s' if self.callers > 1 else ''}"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One cell of one system in one round; `failed` counts errors, `wrong` counts sums that are not the sum."""

    system: str
    round: int
    nbytes: int
    callers: int
    requests: int
    failed: int
    wrong: int
    per_second: float
    p50_ms: float
    p90_ms: float
    p99_ms: float

    @property
    def cell(self) -> Cell:
        return Cell(self.nbytes, self.callers)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def payload(nbytes: int, caller: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns left, right and their sum, FP32 [1, nbytes/4], others for every caller so that mixed-up answers show.

    Small whole numbers, because their sums are exact in FP32 whoever adds them.
    """
    numbers = np.random.default_rng([nbytes, caller])
    left, right = (numbers.integers(-1000, 1000, (1, nbytes // 4)).astype(np.float32) for _ in INPUTS)
    return left, right, left + right
