"""How fast a worker computes, as its reports tell."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

__all__ = ["Speed"]

NEWEST: Final = 3
"""Measurements that must agree before a change is believed at once; one hiccup, or two, are not a change."""

CHANGE: Final = 1.1
"""Ratio beyond which the newest measurements, all on one side, are another speed and not the spread of the old one."""

KEPT: Final = 256
"""Measurements. A median over more says nothing new."""

LEAST: Final = 1e-9
MOST: Final = 1e12


class Speed:
    """Samples per second of one worker: the median of what was measured since the last plan, smoothed over plans."""

    def __init__(self, smoothing: float, value: float | None = None) -> None:
        self.value = value
        """None until something was measured and settled."""
        self._smoothing = smoothing
        self._measured: deque[tuple[float, int]] = deque(maxlen=KEPT)
        self._fresh = 0

    def measure(self, samples: int, seconds: float) -> None:
        """A share of so many samples was computed in so many seconds. What cannot be a measurement is left out."""
        if samples < 1 or not math.isfinite(seconds) or seconds <= 0:
            return
        self._measured.append((min(max(samples / seconds, LEAST), MOST), samples))
        self._fresh = min(self._fresh + 1, KEPT)

    def settle(self, begin: float | None) -> None:
        """Takes in what was measured since the last time.

        begin: what to smooth from while the worker has no speed of its own.
        """
        if not self._fresh:
            return
        window = list(self._measured)[-max(self._fresh, NEWEST) :]
        newest = window[-NEWEST:]
        before = begin if self.value is None else self.value
        if before is None:
            self.value = _median(window)
        elif len(newest) == NEWEST and _changed(newest, before):
            self.value = _median(newest)
        else:
            self.value = before + self._smoothing * (_median(window) - before)
        self._fresh = 0


def _changed(newest: list[tuple[float, int]], before: float) -> bool:
    speeds = [speed for speed, _ in newest]
    return min(speeds) > before * CHANGE or max(speeds) * CHANGE < before


def _median(measured: list[tuple[float, int]]) -> float:
    """By samples: a share of a few, as the last one of an epoch may be, tells less. Of two the faster one, for what
    disturbs makes slower."""
    half = sum(samples for _, samples in measured) / 2
    below = 0
    for speed, samples in sorted(measured):
        below += samples
        if below > half:
            return speed
    return max(measured)[0]
