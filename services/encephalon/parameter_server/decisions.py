"""What was decided about the updates of a generation."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from enum import Enum
from typing import Final

from encephalon.core.errors import FailedPrecondition

__all__ = ["Decided", "Decision", "Decisions"]

REMEMBERED: Final = 1024
"""Decisions that can be repeated though a checkpoint was published behind them."""
MOST_RANGES: Final = 4096
"""Updates are decided almost in their order; those of more gaps than this were given up long ago."""


class Decision(Enum):
    APPLY = "apply"
    SKIP = "skip"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class Decided:
    update: int
    decision: Decision
    version: int
    """After it; of a dropped update the one that it was dropped at."""
    scale: float = 1.0
    note: bytes = b""

    def same(self, other: Decided) -> bool:
        """Whether it is the same decision again. A dropped update has no version."""
        if self.decision is Decision.DROP or other.decision is Decision.DROP:
            return (self.update, self.decision) == (other.update, other.decision)
        return (self.update, self.decision, self.version, self.scale) == (
            other.update,
            other.decision,
            other.version,
            other.scale,
        )


class Decisions:
    """Every update is decided once; the same decision again is harmless."""

    def __init__(self, published: int) -> None:
        """published: version of the checkpoint that everything begins with."""
        self._published = published
        self._known: dict[int, Decided] = {}
        self._starts: list[int] = []
        self._stops: list[int] = []

    def has(self, update: int) -> bool:
        at = bisect_right(self._starts, update) - 1
        return at >= 0 and update < self._stops[at]

    def find(self, wanted: Decided) -> Decided | None:
        """The same decision, when it was taken already; None when there is none yet. FailedPrecondition for another."""
        if not self.has(wanted.update):
            return None
        known = self._known.get(wanted.update)
        if known is not None and known.same(wanted):
            return known
        was = "long ago" if known is None else f"({known.decision.value}, version {known.version})"
        raise FailedPrecondition(
            f"update {wanted.update} was decided {was} and cannot be decided again "
            f"({wanted.decision.value}, version {wanted.version})",
            update=wanted.update,
        )

    def take(self, decided: Decided) -> None:
        self._known[decided.update] = decided
        self._mark(decided.update)
        self._prune()

    def publish(self, version: int) -> None:
        """A checkpoint of this version was published."""
        self._published = max(self._published, version)
        self._prune()

    def since_published(self) -> list[Decided]:
        """In order; what was dropped has left nothing behind and is not in it."""
        return [each for each in self._known.values() if self._open(each)]

    def _open(self, decided: Decided) -> bool:
        return decided.decision is not Decision.DROP and decided.version > self._published

    def _prune(self) -> None:
        if len(self._known) > 2 * REMEMBERED:  # at times, for it looks at all of them
            old = list(self._known)[:-REMEMBERED]
            for update in [update for update in old if not self._open(self._known[update])]:
                del self._known[update]

    def _mark(self, update: int) -> None:
        """Ranges [start, stop), disjoint, ascending, joined where they touch."""
        at = bisect_right(self._starts, update)
        self._starts.insert(at, update)
        self._stops.insert(at, update + 1)
        for left in (at, at - 1):
            if 0 <= left < len(self._starts) - 1 and self._stops[left] == self._starts[left + 1]:
                self._stops[left] = self._stops.pop(left + 1)
                del self._starts[left + 1]
        if len(self._starts) > MOST_RANGES:
            del self._starts[1], self._stops[0]
