"""How long to wait before a process that ended is started again."""

from __future__ import annotations

__all__ = ["Backoff"]


class Backoff:
    """Doubles from `first_s` to `longest_s` while a process keeps ending early; one that lived `steady_s` starts anew.

    The first wait is short, because a region that was killed once should be back before its callers give up; the
    longest keeps a process that cannot start from eating the machine.
    """

    def __init__(self, first_s: float = 0.2, longest_s: float = 30.0, steady_s: float = 60.0) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._steady_s = steady_s
        self._next_s = first_s

    def after(self, lived_s: float) -> float:
        """Seconds to wait now that the process has ended after `lived_s` seconds."""
        if lived_s >= self._steady_s:
            self._next_s = self._first_s
        delay = self._next_s
        self._next_s = min(self._longest_s, delay * 2)
        return delay
