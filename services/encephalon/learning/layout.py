"""Cuts the tensors of a model into slices and deals them out to shards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Final

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.core.errors import InvalidInput

__all__ = ["MAX_SLICE", "check", "count", "planned"]

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


def check(layout: pb.Layout) -> None:
    """InvalidInput unless every element of every tensor is in exactly one slice of one of its shards, in order."""
    for tensor in layout.tensors:
        if tensor.kind not in (pb.Tensor.KIND_PARAMETER, pb.Tensor.KIND_BUFFER):
            raise InvalidInput(f"tensor '{tensor.name}' is neither a parameter nor a buffer", tensor=tensor.name)
    cuts = {at: list(each) for at, each in groupby(layout.slices, key=lambda cut: cut.tensor)}
    if sorted(cuts) != list(range(len(layout.tensors))) or sum(map(len, cuts.values())) != len(layout.slices):
        raise InvalidInput(f"the slices of the layout are not those of its {len(layout.tensors)} tensors, in order")
    for at, tensor in enumerate(layout.tensors):
        borders = [0, *(cut.stop for cut in cuts[at])]
        gaps = [cut.start for cut in cuts[at]] != borders[:-1] or borders[-1] != count(tensor)
        if gaps or borders != sorted(set(borders)) or any(cut.shard >= layout.shards for cut in cuts[at]):
            raise InvalidInput(
                f"the slices of tensor '{tensor.name}' do not have each of its {count(tensor)} elements once, on one "
                f"of {layout.shards} shards",
                tensor=tensor.name,
            )


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
