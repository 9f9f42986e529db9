"""The two stores, the place of one library in them, and how long is waited: what every step of the library needs."""

from __future__ import annotations

from dataclasses import dataclass, field

from encephalon.library.store.keys import Keys
from encephalon.state import KeyValue, Objects

__all__ = ["Stores", "Timing"]


@dataclass(frozen=True, slots=True)
class Timing:
    """How long writers and the garbage collection wait for each other."""

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


@dataclass(frozen=True, slots=True)
class Stores:
    key_value: KeyValue
    objects: Objects
    keys: Keys
    timing: Timing = field(default_factory=Timing)
