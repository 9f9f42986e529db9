"""Which replica keeps the state of which sequence."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["Sequences"]

Key = int | str


class Sequences:
    """Sequence ids to replica ids; forgets the least recently used beyond `limit`, and any unused for `idle_s`."""

    def __init__(
        self, limit: int = 100_000, idle_s: float = 300.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit, self._idle_s, self._clock = limit, idle_s, clock
        self._kept: OrderedDict[Key, tuple[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def replica(self, sequence: Key) -> str | None:
        """Where the sequence is kept, None for an unknown one."""
        self._expire()
        found = self._kept.get(sequence)
        if found is None:
            return None
        self.keep(sequence, found[0])
        return found[0]

    def keep(self, sequence: Key, replica: str) -> None:
        self._kept[sequence] = (replica, self._clock())
        self._kept.move_to_end(sequence)
        if len(self._kept) > self._limit:
            self._kept.popitem(last=False)

    def forget(self, sequence: Key) -> None:
        self._kept.pop(sequence, None)

    def _expire(self) -> None:
        oldest = self._clock() - self._idle_s
        while self._kept:
            sequence, (_, used) = next(iter(self._kept.items()))
            if used >= oldest:
                return
            del self._kept[sequence]
