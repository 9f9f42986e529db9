"""When a region counts as lost.

Counted in looks, each of which counts at most `LOOK_S`: when this process itself stood still, that is no silence of
others.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from encephalon.core.errors import Unavailable

__all__ = ["LOOK_S", "Patience"]

LOOK_S: Final = 0.25
"""Between two looks when nothing comes; also how long a share that was taken away is still worked on."""


class Patience:
    """stall_s: without a word, of which a region that lives says one a second. compute_s: for one pass."""

    def __init__(self, regions: Iterable[str], *, stall_s: float, compute_s: float) -> None:
        self._stall_s, self._compute_s = stall_s, compute_s
        self._silent = dict.fromkeys(regions, 0.0)
        self._busy = dict.fromkeys(self._silent, 0.0)

    def heard(self, region: str, *, beat: bool) -> None:
        self._silent[region] = 0.0
        if not beat:
            self._busy[region] = 0.0

    def finished(self, region: str) -> None:
        """Nothing more is expected of it."""
        del self._silent[region]

    def looked(self, seconds: float, owing: Iterable[str]) -> None:
        """So long ago was the last look. Unavailable, naming the region, for one that is silent, or does not get
        on with what it owes."""
        passed = min(seconds, 2 * LOOK_S)
        owed = set(owing)
        for region in self._silent:
            self._silent[region] += passed
            self._busy[region] = self._busy[region] + passed if region in owed else 0.0
            if self._silent[region] > self._stall_s:
                raise Unavailable(
                    f"region '{region}' has not said a word for {self._stall_s:g} s; it stands still or cannot be "
                    "reached",
                    region=region,
                )
            if self._busy[region] > self._compute_s:
                raise Unavailable(
                    f"region '{region}' has not finished a pass for {self._compute_s:g} s; use smaller micro-batches, "
                    "or look at its log",
                    region=region,
                )
