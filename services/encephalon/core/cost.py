"""What a batch will cost: a line through the batches of the last while.

The model is `t = a*n + b` (seconds for n rows). It is fitted by weighted least squares over sums that forget (an
exponential window), and robustly: a batch far off the line counts in proportion to how believable it is (Huber's
weights), so one hiccup does not stop admission, while a lasting change moves the line within a few batches.
"""

from __future__ import annotations

import math

__all__ = ["CostModel"]

MEMORY = 64
"""Batches in the exponential window."""
HUBER = 3.0
"""Residuals beyond so many mean deviations count less; 3 leaves honest noise alone."""
FLOOR = 0.02
"""The mean deviation is never taken to be smaller than this share of the estimate, or a run of equal batches would
distrust any other.
"""

SURPRISES = 4
"""After so many batches in a row that are hard to believe, and all on one side, the past is forgotten: it has changed.
"""


class CostModel:
    """Learns from `observe(rows, seconds)`; `estimate(rows)` in seconds is 0.0 until the first batch was seen."""

    __slots__ = ("_deviation", "_keep", "_n", "_nn", "_nt", "_surprises", "_t", "_weight", "fixed", "per_row")

    def __init__(self, memory: int = MEMORY) -> None:
        self._keep = 1.0 - 1.0 / memory
        self._weight = self._n = self._nn = self._t = self._nt = 0.0
        self._deviation = 0.0
        self._surprises = 0
        self.per_row = 0.0
        """Seconds that each row adds (a)."""
        self.fixed = 0.0
        """Seconds that a batch costs however small it is (b): what batching saves."""

    @property
    def known(self) -> bool:
        return self._weight > 0.0

    def estimate(self, rows: int) -> float:
        return self.per_row * rows + self.fixed

    def observe(self, rows: int, seconds: float) -> None:
        weight = self._believe(rows, seconds)
        keep = self._keep
        self._weight = keep * self._weight + weight
        self._n = keep * self._n + weight * rows
        self._nn = keep * self._nn + weight * rows * rows
        self._t = keep * self._t + weight * seconds
        self._nt = keep * self._nt + weight * rows * seconds
        self._fit()

    def _believe(self, rows: int, seconds: float) -> float:
        """The weight of this batch, 0 to 1. The mean deviation is updated; it grows at most threefold per batch."""
        if not self.known:
            return 1.0
        expected = self.estimate(rows)
        residual = abs(seconds - expected)
        usual = max(self._deviation, FLOOR * expected, 1e-6)
        self._deviation += (min(residual, HUBER * usual) - self._deviation) * 0.1
        if residual <= HUBER * usual:
            self._surprises = 0
            return 1.0
        side = 1 if seconds > expected else -1
        self._surprises = self._surprises + side if self._surprises * side > 0 else side
        if abs(self._surprises) >= SURPRISES:
            self._weight = self._n = self._nn = self._t = self._nt = self._deviation = 0.0
            self._surprises = 0
            return 1.0
        return HUBER * usual / residual

    def _fit(self) -> None:
        weight, n, t = self._weight, self._n, self._t
        variance = weight * self._nn - n * n
        if variance > 1e-6 * self._nn * weight:
            per_row = max(0.0, (weight * self._nt - n * t) / variance)
            fixed = (t - per_row * n) / weight
            if fixed < 0.0:  # through the origin, then
                per_row, fixed = self._nt / self._nn, 0.0
        else:  # one batch size so far: half of it is taken to be fixed, until another size tells
            mean_rows, mean = n / weight, t / weight
            per_row, fixed = (mean / 2 / mean_rows, mean / 2) if mean_rows > 1 else (0.0, mean)
        self.per_row, self.fixed = per_row, fixed

    def seed(self, points: dict[int, float]) -> None:
        """Starts from measured points (rows to seconds), as warming up gives them; invalid ones are left out."""
        for rows, seconds in points.items():
            if rows > 0 and math.isfinite(seconds):
                self.observe(rows, seconds)
        self._deviation = 0.0  # the first point left the slope open; that says nothing of how much batches vary
