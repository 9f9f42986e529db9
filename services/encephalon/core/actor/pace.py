"""Whether it pays to wait for more messages before a batch starts."""

from __future__ import annotations

from encephalon.core.cost import CostModel

__all__ = ["Pace"]

SMOOTHING = 0.1
"""Weight of the newest gap between arrivals."""
QUIET = 4.0
"""After so many usual gaps without an arrival the burst is taken to be over."""
TICK_S = 0.001
"""The resolution of asyncio's timers on epoll: a wait that no arrival ends takes at least this long."""


class Pace:
    """Knows the rhythm of arrivals.

    Waiting for one more message delays the n rows that are here by a gap each, and saves the fixed cost b of a batch of
    its own for the newcomer: it pays while `n * gap < b`, and is done while it pays twice, as both are estimates. A
    lone caller, who asks again only after the answer, has gaps longer than b and never waits.
    """

    __slots__ = ("_gap", "_last", "_since", "max_delay")

    def __init__(self, max_delay: float) -> None:
        self.max_delay = max_delay
        self._gap: float | None = None
        self._last: float | None = None
        self._since: float | None = None

    def arrived(self, now: float) -> None:
        if self._last is not None:
            gap = now - self._last
            self._gap = gap if self._gap is None else self._gap + (gap - self._gap) * SMOOTHING
        self._last = now

    def patience(self, now: float, rows: int, max_rows: int, cost: CostModel) -> float:
        """Seconds to wait before looking again; 0.0 means start now."""
        if rows >= max_rows or self.max_delay == 0.0 or not cost.known or self._gap is None or self._last is None:
            return 0.0
        if self._since is None:
            self._since = now
        gap = max(self._gap, TICK_S / QUIET)
        if 2 * rows * gap >= cost.fixed:
            return 0.0
        return max(0.0, min(self._since + self.max_delay, self._last + QUIET * gap) - now)

    def started(self) -> None:
        """A batch started: the next one has its full delay."""
        self._since = None
