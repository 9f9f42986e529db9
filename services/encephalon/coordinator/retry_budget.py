"""Keeps retries from becoming a storm: they may be a share of the requests, and a burst for the death of a replica."""

from __future__ import annotations

__all__ = ["RetryBudget"]


class RetryBudget:
    """Every request earns `share` of a retry, up to `burst`; every retry or hedge takes one."""

    __slots__ = ("_burst", "_share", "_tokens")

    def __init__(self, share: float = 0.2, burst: float = 512.0) -> None:
        # A dying replica fails at once what its mailbox (256 messages by default) and its connection hold.
        self._share, self._burst = share, burst
        self._tokens = burst

    def earn(self) -> None:
        if self._tokens < self._burst:
            self._tokens += self._share

    def take(self) -> bool:
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
