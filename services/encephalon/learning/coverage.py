"""Which piece of a checkpoint has which elements. Imports no torch."""

from __future__ import annotations

from typing import NamedTuple

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.core.errors import Corrupt, FailedPrecondition
from encephalon.learning.layout import count

__all__ = ["Cut", "cuts_of", "inconsistent", "matched"]


class Cut(NamedTuple):
    """Elements of a tensor, in a piece."""

    start: int
    stop: int
    piece: int


def cuts_of(checkpoint: pb.Checkpoint) -> list[list[Cut]]:
    """By tensor, in order. Corrupt unless every element is in exactly one piece."""
    cuts: list[list[Cut]] = [[] for _ in checkpoint.tensors]
    for number, piece in enumerate(checkpoint.pieces):
        for cut in piece.slices:
            if cut.tensor >= len(cuts):
                raise inconsistent(piece.key, f"it has tensor {cut.tensor} of {len(cuts)}")
            cuts[cut.tensor].append(Cut(cut.start, cut.stop, number))
    for tensor, parts in zip(checkpoint.tensors, cuts, strict=True):
        parts.sort()
        at = 0
        for part in [*parts, Cut(count(tensor), count(tensor), 0)]:
            if part.start != at or part.stop < part.start:
                what = "in two pieces" if part.start < at else "in none"
                raise Corrupt(
                    f"the checkpoint of version {checkpoint.version} has elements {min(at, part.start)} to "
                    f"{max(at, part.start)} of tensor '{tensor.name}' {what}; resume from another",
                    tensor=tensor.name,
                )
            at = part.stop
    return cuts


def matched(checkpoint: pb.Checkpoint, layout: pb.Layout) -> dict[int, int]:
    """By number of a tensor in the layout, its number in the checkpoint. FailedPrecondition for another model."""
    there = {tensor.name: at for at, tensor in enumerate(checkpoint.tensors)}
    for tensor in layout.tensors:
        if tensor.name not in there or checkpoint.tensors[there[tensor.name]] != tensor:
            raise FailedPrecondition(
                f"the checkpoint of version {checkpoint.version} has no tensor '{tensor.name}' of shape "
                f"{list(tensor.shape)}; it is of another model",
                tensor=tensor.name,
            )
    return {at: there[tensor.name] for at, tensor in enumerate(layout.tensors)}


def inconsistent(key: str, why: str) -> Corrupt:
    """A piece that is not what its checkpoint says."""
    return Corrupt(f"the piece '{key}' does not fit its checkpoint: {why}; resume from another", key=key)
