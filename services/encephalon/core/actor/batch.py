"""Messages on their way through a mailbox, alone and in batches."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

__all__ = ["Batch", "Envelope"]

M = TypeVar("M")
A = TypeVar("A")


class Envelope(Generic[M, A]):
    """One message in the mailbox; `future` gets its answer."""

    __slots__ = (
        "arrived",
        "batch",
        "deadline",
        "expected",
        "future",
        "given_up",
        "key",
        "message",
        "order",
        "priority",
        "rows",
    )

    def __init__(
        self,
        message: M,
        future: asyncio.Future[A],
        *,
        rows: int,
        key: Hashable,
        priority: int,
        deadline: float,
        arrived: float,
        sequence: int,
    ) -> None:
        self.message = message
        self.future = future
        self.rows = rows
        self.key = key
        self.priority = priority
        self.deadline = deadline
        self.arrived = arrived
        self.order = (priority, deadline, sequence)
        self.batch: Batch[M, A] | None = None
        self.given_up = False
        self.expected = 0.0
        """When the answer was expected to be there, as admission saw it."""

    def __lt__(self, other: Envelope[M, A]) -> bool:
        return self.order < other.order

    @property
    def gone(self) -> bool:
        """Nobody waits for the answer any more."""
        return self.future.done()


class Batch(Generic[M, A]):
    """Messages that are computed together."""

    __slots__ = ("_alive", "abandoned", "envelopes", "rows", "started")

    def __init__(self, envelopes: Sequence[Envelope[M, A]], started: float) -> None:
        self.envelopes = envelopes
        self.rows = sum(envelope.rows for envelope in envelopes)
        self.started = started
        self.abandoned = threading.Event()
        """Set when nobody waits for any of the answers; whoever computes may stop."""
        self._alive = len(envelopes)
        for envelope in envelopes:
            envelope.batch = self

    @property
    def messages(self) -> list[M]:
        return [envelope.message for envelope in self.envelopes]

    @property
    def queued(self) -> list[float]:
        """Seconds that each message waited."""
        return [self.started - envelope.arrived for envelope in self.envelopes]

    def watch(self, event: threading.Event) -> None:
        """Takes `event`, which is clear, for `abandoned`: one that whoever computes has had all along."""
        if self.abandoned.is_set():
            event.set()
        self.abandoned = event

    def abandon_one(self) -> None:
        self._alive -= 1
        if self._alive == 0:
            self.abandoned.set()
