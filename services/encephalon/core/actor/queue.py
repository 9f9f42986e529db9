"""The order of a mailbox: by priority, then deadline, then arrival; batches of messages whose keys agree."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

from encephalon.core.actor.batch import Envelope

__all__ = ["Queue", "Unify"]

M = TypeVar("M")
A = TypeVar("A")
Unify = Callable[[Hashable, Hashable], Hashable | None]
"""The key of a batch that holds messages of both keys, or None when they cannot share one."""


class Queue(Generic[M, A]):
    """A heap per key. Messages that were given up stay until they surface, so giving up is O(1); too many are swept
    out.
    """

    def __init__(self, unify: Unify | None = None) -> None:
        self._heaps: dict[Hashable, list[Envelope[M, A]]] = {}
        self._unify = unify
        self._rows: dict[int, int] = {}
        self._dropped = 0
        self.count = 0
        self.rows = 0

    def push(self, envelope: Envelope[M, A]) -> None:
        heappush(self._heaps.setdefault(envelope.key, []), envelope)
        self._add(envelope, 1)

    def drop(self, envelope: Envelope[M, A]) -> None:
        """The message is no longer waited for; it is skipped from now on."""
        self._add(envelope, -1)
        self._dropped += 1
        if self._dropped > 32 and self._dropped > self.count:
            self._sweep()

    def rows_before(self, priority: int) -> int:
        """Rows of messages that a new one of this priority has to wait for."""
        if len(self._rows) <= 1:
            return self.rows if priority >= next(iter(self._rows), priority) else 0
        return sum(rows for level, rows in self._rows.items() if level <= priority)

    def take(self, max_rows: int) -> list[Envelope[M, A]]:
        """The first message and those that share its batch, in order, at most `max_rows` (the first may be larger)."""
        first = self._first()
        if first is None:
            return []
        key = first.key
        taken = self._take_same(key, max_rows, [])
        if self._unify is not None:
            for other in sorted(self._heads(), key=lambda head: head.order):
                merged = self._unify(key, other.key)
                if merged is not None:
                    key = merged
                    self._take_same(other.key, max_rows, taken)
        return taken

    def __iter__(self) -> Iterator[Envelope[M, A]]:
        """Every message that is still waited for, in no order."""
        return (envelope for heap in self._heaps.values() for envelope in heap if not envelope.gone)

    def _take_same(self, key: Hashable, max_rows: int, taken: list[Envelope[M, A]]) -> list[Envelope[M, A]]:
        rows = sum(envelope.rows for envelope in taken)
        while (head := self._head(key)) is not None and (not taken or rows + head.rows <= max_rows):
            heappop(self._heaps[key])
            self._add(head, -1)
            taken.append(head)
            rows += head.rows
        self._head(key)  # forgets the key when nothing is left of it
        return taken

    def _first(self) -> Envelope[M, A] | None:
        return min(self._heads(), key=lambda head: head.order, default=None)

    def _heads(self) -> list[Envelope[M, A]]:
        return [head for key in list(self._heaps) if (head := self._head(key)) is not None]

    def _head(self, key: Hashable) -> Envelope[M, A] | None:
        heap = self._heaps.get(key)
        if heap is None:
            return None
        while heap and heap[0].gone:
            heappop(heap)
            self._dropped -= 1
        if heap:
            return heap[0]
        del self._heaps[key]
        return None

    def _add(self, envelope: Envelope[M, A], sign: int) -> None:
        self.count += sign
        self.rows += sign * envelope.rows
        left = self._rows.get(envelope.priority, 0) + sign * envelope.rows
        if left:
            self._rows[envelope.priority] = left
        else:
            self._rows.pop(envelope.priority, None)

    def _sweep(self) -> None:
        for key, heap in list(self._heaps.items()):
            kept = [envelope for envelope in heap if not envelope.gone]
            if kept:
                heapify(kept)
                self._heaps[key] = kept
            else:
                del self._heaps[key]
        self._dropped = 0
