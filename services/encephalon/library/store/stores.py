"""The two stores and the place of one library in them: what every step of the library needs."""

from __future__ import annotations

from dataclasses import dataclass, field

from encephalon.library.store.keys import Keys
from encephalon.library.store.timing import Timing
from encephalon.state import KeyValue, Objects

__all__ = ["Stores"]


@dataclass(frozen=True, slots=True)
class Stores:
    key_value: KeyValue
    objects: Objects
    keys: Keys
    timing: Timing = field(default_factory=Timing)
