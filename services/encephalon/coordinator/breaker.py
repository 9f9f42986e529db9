"""Stops asking a region that fails, and tries one request now and then until it answers again."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable

__all__ = ["Breaker", "BreakerState"]


class BreakerState(enum.Enum):
    CLOSED = "closed"
    """Requests pass."""
    OPEN = "open"
    """Requests are refused at once."""
    HALF_OPEN = "half-open"
    """One probe is on its way."""


class Breaker:
    """Opens when at least `minimum` failures, and at least half of the requests, fall into one window of `window_s`.

    After `open_s` one request may pass: when it succeeds the breaker closes, else it opens anew.
    """

    __slots__ = ("_clock", "_failures", "_minimum", "_open_s", "_since", "_state", "_successes", "_window_s")

    def __init__(
        self, minimum: int = 10, window_s: float = 5.0, open_s: float = 0.5, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._minimum, self._window_s, self._open_s, self._clock = minimum, window_s, open_s, clock
        self._state = BreakerState.CLOSED
        self._successes = self._failures = 0
        self._since = clock()

    @property
    def state(self) -> BreakerState:
        return self._state

    def allows(self) -> bool:
        """Whether a request may pass now. A True while half-open is the probe: its outcome must be told."""
        if self._state is BreakerState.CLOSED:
            return True
        # A probe whose outcome never came (its caller went away) must not keep the breaker half-open for ever.
        if self._clock() - self._since < self._open_s:
            return False
        self._turn(BreakerState.HALF_OPEN)
        return True

    def succeeded(self) -> None:
        self._successes += 1
        if self._state is not BreakerState.CLOSED:
            self.reset()

    def failed(self) -> None:
        if self._state is BreakerState.HALF_OPEN:
            self._turn(BreakerState.OPEN)
            return
        now = self._clock()
        if self._state is BreakerState.CLOSED and now - self._since > self._window_s:
            self._successes = self._failures = 0
            self._since = now
        self._failures += 1
        if self._state is BreakerState.CLOSED and self._failures >= max(self._minimum, self._successes):
            self._turn(BreakerState.OPEN)

    def reset(self) -> None:
        """Closes: something has changed for the better, such as a new replica."""
        self._turn(BreakerState.CLOSED)

    def _turn(self, state: BreakerState) -> None:
        self._state = state
        self._since = self._clock()
        self._successes = self._failures = 0
