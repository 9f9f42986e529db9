"""Samples per second over the last updates."""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["Pace"]

WINDOW_S: Final = 10.0
MOST: Final = 512


class Pace:
    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque(maxlen=MOST)

    def add(self, at: float, samples: int) -> None:
        self._seen.append((at, samples))
        while self._seen[-1][0] - self._seen[0][0] > WINDOW_S:
            self._seen.popleft()

    @property
    def value(self) -> float:
        """0 before the second update: what came with the first took an unknown time."""
        if len(self._seen) < 2:
            return 0.0
        (first, skipped), last = self._seen[0], self._seen[-1][0]
        total = sum(samples for _, samples in self._seen) - skipped
        return total / (last - first) if last > first else 0.0
