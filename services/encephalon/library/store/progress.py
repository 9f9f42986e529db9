"""How callers are told what is done so far."""

from __future__ import annotations

from collections.abc import Callable

from encephalon.state.objects import Progress, unseen

__all__ = ["Counted", "Progress", "silent", "uncounted"]

silent = unseen

Counted = Callable[[int, int], None]
"""Is told how much is done, and of how much."""


def uncounted(done: int, total: int) -> None:
    """For who follows no count."""
