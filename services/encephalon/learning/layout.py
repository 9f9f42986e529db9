"""Cuts the tensors of a model into slices and deals them out to shards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.core.errors import InvalidInput

__all__ = ["MAX_SLICE", "count", "planned"]

MAX_SLICE: Final = 1 << 20
"""Elements (4 MiB of float32): one shard adds a slice while the next one is still on its way."""

ALIGN: Final = 1 << 10
"""A tensor is cut at multiples of it. A vector unit then sees the same lanes as in the uncut tensor, so an optimiser
rounds the same."""


def count(tensor: pb.Tensor) -> int:
    """Elements of the tensor."""
    return math.prod(tensor.shape)


def planned(tensors: Sequence[pb.Tensor], shards: int, *, whole: bool = False) -> pb.Layout:
    """The tensors over so many shards: the largest slices first, each to the shard that has the fewest bytes.

    whole: do not cut, for optimisers that look at a tensor as a matrix. InvalidInput without a shard, for a tensor
    without elements, and for two of one name.
    """
    if shards < 1:
        raise InvalidInput(f"a layout over {shards} shards is none; give 1 or more")
    names = [tensor.name for tensor in tensors]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInput(f"two tensors are called '{twice}'", tensor=twice)
    cuts = [
        pb.Slice(tensor=at, start=start, stop=stop)
        for at, tensor in enumerate(tensors)
        for start, stop in _cut(tensor, shards, whole)
    ]
    loads = [0] * shards
    for cut in sorted(cuts, key=lambda cut: (cut.start - cut.stop, cut.tensor, cut.start)):
        cut.shard = loads.index(min(loads))
        loads[cut.shard] += cut.stop - cut.start
    return pb.Layout(tensors=tensors, slices=cuts, shards=shards)


def _cut(tensor: pb.Tensor, shards: int, whole: bool) -> list[tuple[int, int]]:
    elements = count(tensor)
    if elements == 0:
        raise InvalidInput(
            f"tensor '{tensor.name}' has shape {list(tensor.shape)}, which holds nothing", tensor=tensor.name
        )
    if whole:
        return [(0, elements)]
    # A tensor of a million elements is dealt out too, so that shards have equal work when the model is one large layer.
    size = min(MAX_SLICE, max(ALIGN, -(-elements // shards // ALIGN) * ALIGN))
    return [(start, min(start + size, elements)) for start in range(0, elements, size)]
