"""The contributions that wait for decisions, by update."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from encephalon.core.errors import FailedPrecondition, Overloaded
from encephalon.parameter_server.contribution import Key, Received
from encephalon.parameter_server.memory import Pool
from encephalon.parameter_server.places import Places
from encephalon.parameter_server.reduction import Reduction

__all__ = ["Entry", "Waiting"]


class Entry(NamedTuple):
    reduction: Reduction
    received: Received
    replaced: Received | None
    """Of a lower attempt, that nobody wants any more."""


class Waiting:
    """Not thread-safe: whoever changes it holds the store's lock, and so does who looks at all of it."""

    def __init__(self, places: Places, buffers: int, came: Callable[[int, int], None]) -> None:
        """buffers: most contributions. came: told of every slice (update, number) that came as a whole."""
        self.expected = 1
        """Contributions to an update, as far as one can know before it is said."""
        self._places = places
        self._buffers = buffers
        self._came = came
        self._pool = Pool(places.elements, buffers)
        self._updates: dict[int, Reduction] = {}

    def enter(self, key: Key) -> Entry:
        """What receives the contribution, perhaps since long. FailedPrecondition for an attempt below one that is here
        or that was prepared, Overloaded when too many wait; then nothing has changed."""
        reduction = self._updates.get(key.update)
        before = reduction.received.get(key.rank) if reduction is not None else None
        if reduction is not None and before is not None and before.key == key:
            return Entry(reduction, before, None)
        _check_attempt(key, reduction, before)
        if before is None:
            self._admit(key)
        reduction = self.update(key.update)
        received = reduction.received[key.rank] = Received(key, self._places, self._pool, self._came)
        return Entry(reduction, received, before)

    def update(self, number: int) -> Reduction:
        """Begins it when it is not there."""
        if (found := self._updates.get(number)) is None:
            found = self._updates[number] = Reduction(number, self._places, self.expected)
        return found

    def find(self, number: int) -> Reduction | None:
        return self._updates.get(number)

    def take(self, number: int) -> Reduction | None:
        """It waits no longer."""
        return self._updates.pop(number, None)

    def take_all(self) -> list[Reduction]:
        """In the order in which they began."""
        updates, self._updates = list(self._updates.values()), {}
        return updates

    @property
    def prepared(self) -> list[int]:
        return sorted(update for update, each in self._updates.items() if each.prepared is not None)

    @property
    def buffered_bytes(self) -> int:
        return sum(reduction.buffered_bytes for reduction in self._updates.values())

    def _admit(self, key: Key) -> None:
        waiting = sum(len(reduction.received) for reduction in self._updates.values())
        if waiting >= self._buffers:
            raise Overloaded(
                f"{waiting} contributions wait at shard {self._places.shard}, which is the most; push {key} again when "
                "an update was decided",
                buffers=self._buffers,
            )


def _check_attempt(key: Key, reduction: Reduction | None, before: Received | None) -> None:
    highest = -1 if before is None else before.key.attempt
    for named in (reduction.wanted if reduction is not None else None) or ():
        if named.rank == key.rank:
            highest = max(highest, named.attempt)
    if key.attempt < highest:
        raise FailedPrecondition(f"{key} is not wanted, attempt {highest} has taken its place", attempt=highest)
