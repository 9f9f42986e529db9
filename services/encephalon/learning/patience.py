"""How long a broken stream is tried again within a share."""

from __future__ import annotations

import time
from typing import Final

from encephalon.core.errors import EncephalonError, Retryable

__all__ = ["BETWEEN_S", "Patience"]

FAILING_S: Final = 2.0
"""Below the time after which a silent shard counts as dead (3 s): who gave the share then knows more."""
BETWEEN_S: Final = 0.05


MOST: Final = 20
"""Failures within a share, whatever went on between them."""


class Patience:
    """Ends when nothing but failures has come for two seconds."""

    def __init__(self) -> None:
        self._since = 0.0
        self._last = 0.0
        self._failures = 0

    def again(self, error: EncephalonError) -> bool:
        """Whether to try again after this failure."""
        now = time.monotonic()
        if now - self._last > FAILING_S:  # a try that lasted longer was one that went on
            self._since = now
        self._last = now
        self._failures += 1
        return isinstance(error, Retryable) and now - self._since < FAILING_S and self._failures < MOST
