"""Memory of float32 elements: the shard's own, and what receives contributions."""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Protocol

import torch

from encephalon.core.errors import InvalidInput

__all__ = ["Memory", "Pool", "check_size", "private"]


class Memory(Protocol):
    """Of the parameters of one store."""

    def __call__(self, size: int) -> torch.Tensor:
        """So many bytes: a contiguous tensor of one dimension, of any type, that is zero."""

    def changing(self, version: int) -> AbstractContextManager[None]:
        """Within the block they change, and after it they have this version."""

    def close(self) -> None:
        """The store has ended. Closing twice is harmless."""


class Private:
    """Memory of this process."""

    def __call__(self, size: int) -> torch.Tensor:
        return torch.zeros(size, dtype=torch.uint8)

    def changing(self, version: int) -> AbstractContextManager[None]:
        return nullcontext()

    def close(self) -> None:
        pass


private: Final = Private()


def check_size(size: int) -> None:
    """InvalidInput for more bytes than the machine has; the kernel would give them, and end the process later."""
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > most:
        raise InvalidInput(
            f"a shard would have {size} bytes of parameters, this machine has {most}; give the run more shards"
        )


class Pool:
    """Flat tensors that are used again: fresh memory costs a page fault for every 4 KiB, which is more than filling
    it. Thread-safe."""

    def __init__(self, elements: int, most: int) -> None:
        self._elements = elements
        self._most = most
        self._spare: list[torch.Tensor] = []
        self._lock = threading.Lock()

    def take(self) -> torch.Tensor:
        """Float32, of `elements`; what is in it is not said."""
        with self._lock:
            return self._spare.pop() if self._spare else torch.empty(self._elements, dtype=torch.float32)

    def give(self, flat: torch.Tensor) -> None:
        """Nobody may use it any more."""
        with self._lock:
            if len(self._spare) < self._most:
                self._spare.append(flat)
