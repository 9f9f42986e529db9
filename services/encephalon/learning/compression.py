"""How many bytes an element costs on its way: as it is, as bfloat16, or only the largest ones.

Nothing here hides a NaN or an infinity: whoever receives them must find them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from encephalon.core.errors import InvalidInput
from encephalon.learning.frames import MAX_PAYLOAD, Codec

__all__ = ["ErrorFeedback", "Piece", "Rest", "Sparse", "decode", "dense"]

Rest: TypeAlias = dict[int, torch.Tensor]
"""By slice, what was not sent: float32, 1-D."""

PAIR: Final = 8
"""Bytes of an index (uint32) and a value (float32)."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Elements `offset` to `offset + count` of a slice, as the payload of one frame."""

    offset: int
    count: int
    codec: Codec
    payload: memoryview


def dense(values: torch.Tensor, codec: Codec) -> Iterator[Piece]:
    """A whole slice (float32, 1-D, contiguous). As float32 the pieces are views of it; bfloat16 is rounded to the
    nearest, ties to even, and NaN stays NaN."""
    size = MAX_PAYLOAD // (4 if codec is Codec.FP32 else 2)
    for offset in range(0, len(values), size):
        part = values[offset : offset + size]
        if codec is Codec.BF16:
            part = part.to(torch.bfloat16).view(torch.int16)
        yield Piece(offset, len(part), codec, part.numpy().data.cast("B"))


@dataclass(frozen=True, slots=True)
class Sparse:
    """The chosen elements of a slice of `size`: increasing indices (uint32) and their values (float32)."""

    size: int
    indices: npt.NDArray[np.uint32]
    values: npt.NDArray[np.float32]

    def pieces(self) -> Iterator[Piece]:
        """Each covers everything up to its last pair, the last one the rest of the slice."""
        most, offset = MAX_PAYLOAD // PAIR, 0
        for first in range(0, len(self.indices), most):
            indices, values = self.indices[first : first + most], self.values[first : first + most]
            stop = self.size if first + most >= len(self.indices) else int(indices[-1]) + 1
            payload = (indices - np.uint32(offset)).tobytes() + values.tobytes()
            yield Piece(offset, stop - offset, Codec.TOPK, memoryview(payload))
            offset = stop


class ErrorFeedback:
    """Top-k with memory: what is not sent of a slice is added to what is sent of it next.

    Stich, Cordonnier, Jaggi: Sparsified SGD with Memory (2018), algorithm 1. What a share leaves unsent (`Rest`)
    becomes the memory only when it was delivered (`keep`); a share that was dropped leaves the memory as it was, also
    when a thread of its still chooses. Chooses at least one element. Threads may `choose` at once, each other slices.
    """

    def __init__(self, share: float) -> None:
        if not 0 < share <= 1:
            raise InvalidInput(f"top_k is {share}, expected a share of the elements above 0 and at most 1")
        self._share = share
        self._memory: Rest = {}

    def choose(self, slice: int, gradient: torch.Tensor, rest: Rest) -> Sparse:
        """Of gradient (float32, 1-D) plus memory, the elements with the largest magnitude; NaN counts as largest. What
        is not chosen is put into `rest`."""
        known = self._memory.get(slice)
        total = gradient.clone() if known is None else known + gradient
        count = max(1, math.ceil(len(total) * self._share))
        chosen = torch.topk(total.abs(), count, sorted=False).indices.sort().values
        values = total[chosen]
        total[chosen] = 0.0
        # One that is not finite was sent if there is any; the others would spoil every later update if they were kept.
        rest[slice] = total.nan_to_num_(0.0, 0.0, 0.0)
        return Sparse(len(total), chosen.numpy().astype(np.uint32), values.numpy())

    def keep(self, rest: Rest) -> None:
        """Of a share that was delivered."""
        self._memory |= rest

    def clear(self) -> None:
        """Begins again: what the memory comes from is computed another time."""
        self._memory = {}


def decode(codec: Codec, payload: memoryview, into: torch.Tensor) -> None:
    """Overwrites `into` (float32, 1-D): decoding twice gives the same. InvalidInput for pairs that cannot be."""
    target: npt.NDArray[np.float32] = into.numpy()
    match codec:
        case Codec.FP32:
            target[...] = np.frombuffer(payload, np.float32)
        case Codec.BF16:
            bits: npt.NDArray[np.uint32] = target.view(np.uint32)
            bits[...] = np.frombuffer(payload, np.uint16)
            bits <<= 16
        case Codec.TOPK:
            _scatter(payload, target)


def _scatter(payload: memoryview, target: npt.NDArray[Any]) -> None:
    half = len(payload) // 2
    indices = np.frombuffer(payload[:half], np.uint32)
    if len(indices) and (indices[-1] >= len(target) or bool((indices[1:] <= indices[:-1]).any())):
        raise InvalidInput(f"top-k indices came that do not increase, or beyond {len(target)} elements")
    target[...] = 0
    target[indices] = np.frombuffer(payload[half:], np.float32)
