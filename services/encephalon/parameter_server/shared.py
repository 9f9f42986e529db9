"""Memory that a shard shares with workers of its machine; who may touch it when is told in `learning.sharing`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.core.errors import FailedPrecondition
from encephalon.learning import segments
from encephalon.learning.segments import PAGE, Mapped, Segment
from encephalon.learning.sharing import CHANGES, HELD, RELEASED, VERSION

__all__ = ["Gradients", "SharedParameters"]


class SharedParameters:
    """The `Memory` of a store whose parameters workers may read. Use it for one store."""

    def __init__(self) -> None:
        self._segment: Segment | None = None
        self._mapped: Mapped | None = None
        self._begins = 0

    def __call__(self, size: int) -> torch.Tensor:
        self._segment = segments.created(max(size, 4))
        self._mapped = self._segment.mapped()
        # A shard may have no slice, when a model is small; torch makes no tensor of nothing.
        values = self._mapped.tensor(self._mapped.view(), PAGE, max(size // 4, 1))
        self._begins = values.data_ptr()
        return values[: size // 4]

    @contextmanager
    def changing(self, version: int) -> Iterator[None]:
        """As `Memory`. When the block fails, nobody reads the parameters again: half of an update may be in them."""
        words = self._known()[1].words
        words[CHANGES] += 1
        yield
        words[VERSION] = version
        words[CHANGES] += 1

    def described(self) -> pb.Memory:
        return self._known()[0].described()

    def offset(self, values: torch.Tensor) -> int:
        """In bytes, of a view of the parameters."""
        return PAGE + values.data_ptr() - self._begins

    def close(self) -> None:
        """Nobody new may open it; whoever has it open keeps it. Closing twice is harmless."""
        if self._segment is not None:
            self._segment.close()

    def _known(self) -> tuple[Segment, Mapped]:
        if self._segment is None or self._mapped is None:
            raise FailedPrecondition("the shard's memory is not there yet")
        return self._segment, self._mapped


class Gradients:
    """A worker's segment, from which contributions are added."""

    def __init__(self, memory: pb.Memory) -> None:
        """Denied when it is none that could be used."""
        segment = segments.opened(memory, write=True)
        try:
            self._mapped = segment.mapped()
        finally:
            segment.close()
        self._view = self._mapped.view()
        self._lock = threading.Lock()

    def hold(self, use: int) -> bool:
        """Tells the worker that this use of the memory is read from now on; false when it was told already.

        FailedPrecondition for a use before the last one.
        """
        words = self._mapped.words
        with self._lock:
            if use < words[HELD] or use < 1:
                raise FailedPrecondition(f"use {use} of shared memory is over, {words[HELD]} has come")
            if words[HELD] == use and words[RELEASED] != use:
                return False
            words[RELEASED] = 0
            words[HELD] = use
            return True

    def release(self, use: int) -> None:
        """Nothing of this use is read any more."""
        with self._lock:
            if self._mapped.words[HELD] == use:
                self._mapped.words[RELEASED] = use

    def values(self, offset: int, count: int) -> torch.Tensor:
        """float32, 1-D. FailedPrecondition for a place outside."""
        return self._mapped.tensor(self._view, offset, count)
