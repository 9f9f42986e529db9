"""How long writers and the garbage collection wait for each other."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Timing"]


@dataclass(frozen=True, slots=True)
class Timing:
    lease_s: float = 15.0
    """How long a writer that died is waited for; three attempts at keeping the lease fit into it."""

    takeover_s: float = 60.0
    """How long after a deleting writer was seen gone its last deletion may still reach the object store. A request has
    a deadline of seconds, so a minute is ample.
    """

    forgotten_s: float = 600.0
    """As `takeover_s`, for who has not watched since when the deleter is gone and goes by the clock of its machine."""

    retry_s: float = 30.0
    """How long a step is repeated that others disturb."""
