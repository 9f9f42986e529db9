"""Where the slices of a shard lie in its flat memory."""

from __future__ import annotations

import torch

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.core.errors import InvalidInput
from encephalon.learning.layout import count

__all__ = ["Places"]


class Places:
    """The slices of one shard, one behind the other in the order of their numbers, without gaps. InvalidInput for a
    layout that is none."""

    def __init__(self, layout: pb.Layout, shard: int) -> None:
        if shard >= layout.shards:
            raise InvalidInput(f"the layout is for {layout.shards} shards, so it has no shard {shard}", shard=shard)
        self.layout = layout
        self.shard = shard
        self.numbers = [number for number, cut in enumerate(layout.slices) if cut.shard == shard]
        self.offsets: dict[int, int] = {}
        """First element of each slice."""
        self.elements = 0
        for number in self.numbers:
            cut = layout.slices[number]
            if cut.tensor >= len(layout.tensors) or not cut.start < cut.stop <= count(layout.tensors[cut.tensor]):
                raise InvalidInput(
                    f"slice {number} is elements {cut.start} to {cut.stop} of tensor {cut.tensor}, which the layout of "
                    f"{len(layout.tensors)} tensors does not have",
                    slice=number,
                )
            self.offsets[number] = self.elements
            self.elements += cut.stop - cut.start

    def size(self, number: int) -> int:
        """Elements. InvalidInput for a slice of another shard, or none."""
        if number not in self.offsets:
            raise InvalidInput(f"slice {number} is not of shard {self.shard}", slice=number, shard=self.shard)
        cut = self.layout.slices[number]
        return cut.stop - cut.start

    def view(self, flat: torch.Tensor, number: int) -> torch.Tensor:
        """The slice in a flat tensor of `elements`. InvalidInput as `size`."""
        size = self.size(number)
        return flat[self.offsets[number] : self.offsets[number] + size]

    def tensor(self, number: int) -> pb.Tensor:
        """That the slice is cut out of."""
        return self.layout.tensors[self.layout.slices[number].tensor]

    def learned(self, number: int) -> bool:
        """Whether it is of a parameter, and not of a buffer."""
        return self.tensor(number).kind == pb.Tensor.KIND_PARAMETER
