"""What one worker adds to one update, while it comes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

import torch

from encephalon.core.errors import FailedPrecondition, InvalidInput
from encephalon.parameter_server.memory import Pool
from encephalon.parameter_server.places import Places

__all__ = ["Contribution", "Key", "Received"]


class Key(NamedTuple):
    """Of a contribution, within a generation."""

    update: int
    rank: int
    attempt: int

    def __str__(self) -> str:
        return f"update {self.update}, rank {self.rank}, attempt {self.attempt}"


class Received:
    """What has come of one contribution. Several streams may bring it, each its slices, and a slice may come again.

    Writers may be slower than decisions, so memory that somebody may still write into is never used again.
    """

    def __init__(self, key: Key, places: Places, pool: Pool, came: Callable[[int, int], None]) -> None:
        """came: told (update, number of the slice) when one is there as a whole."""
        self.key = key
        self.there: dict[int, torch.Tensor | None] = {}
        """Slices that came as a whole; None for one that is absent."""
        self.refused = ""
        """Why nothing more is taken; empty while it is."""
        self.places = places
        self.lock = threading.Lock()
        self._pool = pool
        self._came = came
        self._freed: list[Callable[[], None]] = []
        self._released = False
        self._flat: torch.Tensor | None = None
        self._writers: dict[int, Contribution] = {}
        self._reusable = True

    @property
    def whole(self) -> bool:
        return len(self.there) == len(self.places.numbers)

    @property
    def buffered_bytes(self) -> int:
        """Of memory of ours that it has taken."""
        return 0 if self._flat is None else self._flat.nbytes

    def begin(self, writer: Contribution, number: int, lent: bool) -> torch.Tensor | None:
        """Memory for the slice, that `writer` alone fills; None when `lent`."""
        size = self.places.size(number)
        with self.lock:
            self.check()
            if number in self.there:
                return None if lent else torch.empty(size, dtype=torch.float32)  # came already; this is for nobody
            before = self._writers.get(number)
            self._writers[number] = writer
            if lent:
                return None
            if before is not None and before is not writer:
                # The one before may still write, as a connection that is cut is noticed late.
                self._reusable = False
                return torch.empty(size, dtype=torch.float32)
            if self._flat is None:
                self._flat = self._pool.take()
            return self.places.view(self._flat, number)

    def end(self, writer: Contribution, number: int, value: torch.Tensor | None) -> None:
        with self.lock:
            self.check()
            if number in self.there:
                return
            if self._writers.get(number) is not writer:
                raise FailedPrecondition(
                    f"slice {number} of {self.key} is brought by another stream that began later; leave it to that one",
                    slice=number,
                )
            del self._writers[number]
            self.there[number] = value
        self._came(self.key.update, number)

    def check(self) -> None:
        """FailedPrecondition when nothing more is taken."""
        if self.refused:
            raise FailedPrecondition(self.refused, update=self.key.update, rank=self.key.rank, attempt=self.key.attempt)

    def when_released(self, call: Callable[[], None]) -> None:
        with self.lock:
            if not self._released:
                self._freed.append(call)
                return
        call()

    def refuse(self, reason: str) -> None:
        with self.lock:
            self.refused = self.refused or reason

    def release(self, reason: str) -> None:
        """Forgets everything; only where nobody reads it any more, which is in the thread that reduces."""
        with self.lock:
            self.refused = self.refused or reason
            flat, self._flat = self._flat, None
            if flat is not None and self._reusable and not self._writers:
                self._pool.give(flat)
            self.there = {}
            calls, self._freed, self._released = self._freed, [], True
        for call in calls:
            call()


class Contribution:
    """One stream's part of a contribution. Thread-safe; a slice is filled by one thread at a time.

    Every method raises FailedPrecondition when the contribution is not wanted any more (its update was decided, a
    higher attempt came, the shard was loaded anew), and InvalidInput for a slice that is not of this shard.
    """

    def __init__(self, received: Received) -> None:
        self._received = received
        self._values: dict[int, torch.Tensor] = {}

    @property
    def key(self) -> Key:
        return self._received.key

    @property
    def whole(self) -> bool:
        """Whether every slice of the shard has come, by whatever stream."""
        return self._received.whole

    def has(self, slice: int) -> bool:
        """Whether the slice has come; what comes again is thrown away."""
        return slice in self._received.there

    def check(self) -> None:
        """Whether anything is wanted of it still."""
        self._received.check()

    def buffer(self, slice: int) -> torch.Tensor:
        """Float32 [elements of the slice], to be filled; the same one until `filled`."""
        if (value := self._values.get(slice)) is not None:
            self._received.check()
            return value
        memory = self._received.begin(self, slice, lent=False)
        if memory is None:
            raise AssertionError("memory that is not lent is given")
        self._values[slice] = memory
        return memory

    def lend(self, slice: int, tensor: torch.Tensor) -> None:
        """Takes the slice from this memory, float32 [elements], contiguous, which must stay until `when_released`."""
        wanted = self._received.places.size(slice)
        if tensor.dtype != torch.float32 or tensor.dim() != 1 or len(tensor) != wanted or not tensor.is_contiguous():
            raise InvalidInput(
                f"slice {slice} was lent as {tensor.dtype} {list(tensor.shape)}, not as contiguous float32 [{wanted}]",
                slice=slice,
            )
        self._received.begin(self, slice, lent=True)
        self._values[slice] = tensor

    def filled(self, slice: int) -> None:
        """What was given by `buffer`, or lent, is final; nobody writes into it any more."""
        value = self._values.get(slice)
        if value is None:
            raise InvalidInput(f"slice {slice} of {self.key} was filled before it was begun", slice=slice)
        self._received.end(self, slice, value)
        del self._values[slice]

    def absent(self, slice: int) -> None:
        """The worker has no gradient for it."""
        self._values.pop(slice, None)
        self._received.begin(self, slice, lent=True)
        self._received.end(self, slice, None)

    def when_released(self, call: Callable[[], None]) -> None:
        """Called once, from any thread, when nothing that was lent is read any more; must be quick."""
        self._received.when_released(call)
