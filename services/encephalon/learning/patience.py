"""How long a broken stream is tried again within a share."""

from __future__ import annotations

import time
from typing import Final

from encephalon.core.errors import EncephalonError, Retryable

__all__ = ["BETWEEN_S", "Patience"]

FAILING_S: Final = 2.0
"""Below the time after which a silent shard counts as dead (3 s): who gave the share then knows more."""
BETWEEN_S: Final = 0.05


class Patience:
    def __init__(self) -> None:
        self._since: float | None = None

    def went_on(self) -> None:
        """There was progress."""
        self._since = None

    def again(self, error: EncephalonError) -> bool:
        """Whether to try again after this failure."""
        if not isinstance(error, Retryable):
            return False
        now = time.monotonic()
        if self._since is None:
            self._since = now
        return now - self._since < FAILING_S
