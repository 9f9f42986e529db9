"""What an optimiser takes for a parameter: some small slices laid together, or a part of a large one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from encephalon.parameter_server.gradient import Gradient
from encephalon.parameter_server.places import Places

__all__ = ["BLOCK", "Block", "apart", "blocks_of"]

BLOCK: Final = 1 << 16
"""Elements. An optimiser goes over a parameter ten times; one that stays in the second cache takes a third of the time
of a large one (AdamW, 12.5 million elements: 25 ms and 84 ms), and small tensors alone cost 50 us each."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Several whole slices, or elements `start` to `stop` of one."""

    numbers: tuple[int, ...]
    start: int
    stop: int
    parameter: torch.nn.Parameter
    sizes: tuple[int, ...]
    """Elements of each slice that are in it."""

    def torn(self, gradients: Mapping[int, Gradient | None]) -> bool:
        """Whether some of its slices have a gradient and some have none."""
        absent = [gradients[number] is None for number in self.numbers]
        return any(absent) and not all(absent)

    def gradient(self, gradients: Mapping[int, Gradient | None], scratch: torch.Tensor) -> torch.Tensor | None:
        """In the parameter's shape; in `scratch`, float32 of as many elements, unless it is there already."""
        found = [gradient for number in self.numbers if (gradient := gradients[number]) is not None]
        if not found:
            return None
        if len(found) == 1 and found[0].plain():
            flat = found[0].parts[0][self.start : self.stop]
        else:
            flat, start = scratch, 0
            for gradient, size in zip(found, self.sizes, strict=True):
                gradient.into(flat[start : start + size], self.start)
                start += size
        return flat.view(self.parameter.shape)

    def part(self, slot: torch.Tensor, number: int) -> torch.Tensor:
        """Of a slot of the parameter that which belongs to the slice. A slot of another shape is not cut."""
        if len(self.numbers) == 1:
            return slot
        start = sum(self.sizes[: self.numbers.index(number)])
        return slot[start : start + self.sizes[self.numbers.index(number)]]

    def joined(self, slots: Sequence[torch.Tensor]) -> torch.Tensor:
        """The slot of the parameter, in memory of its own, out of those of its slices."""
        if len(slots) > 1:
            return torch.cat(list(slots))
        cut = slots[0].dim() == 1 and self.parameter.dim() == 1
        return (slots[0][self.start : self.stop] if cut else slots[0]).clone()


def blocks_of(places: Places, flat: torch.Tensor, *, whole: bool, alike: Callable[[int], object]) -> list[Block]:
    """Over the learned slices of a shard. whole: each slice, in its tensor's shape. alike: slices are laid together
    only when it gives equal values for them."""
    blocks: list[Block] = []
    run: list[int] = []
    for number in places.numbers:
        if not places.learned(number):
            continue
        size = places.size(number)
        if run and not (
            _follows(places, run[-1], number) and _fits(places, run, size) and alike(run[-1]) == alike(number)
        ):
            blocks.append(_together(places, flat, run))
            run = []
        if whole:
            blocks.append(_shaped(places, flat, number))
        elif size > BLOCK:
            cuts = range(0, size, BLOCK)
            blocks += [_part(places, flat, number, start, min(start + BLOCK, size)) for start in cuts]
        else:
            run.append(number)
    return blocks + ([_together(places, flat, run)] if run else [])


def apart(block: Block, places: Places, flat: torch.Tensor) -> list[Block]:
    """Its slices, each as a block."""
    return [_together(places, flat, [number]) for number in block.numbers]


def _follows(places: Places, before: int, number: int) -> bool:
    return places.offsets[before] + places.size(before) == places.offsets[number]


def _fits(places: Places, run: Sequence[int], size: int) -> bool:
    return sum(places.size(number) for number in run) + size <= BLOCK


def _together(places: Places, flat: torch.Tensor, run: Sequence[int]) -> Block:
    sizes = tuple(places.size(number) for number in run)
    first = places.offsets[run[0]]
    return Block(tuple(run), 0, sum(sizes), torch.nn.Parameter(flat[first : first + sum(sizes)]), sizes)


def _part(places: Places, flat: torch.Tensor, number: int, start: int, stop: int) -> Block:
    first = places.offsets[number]
    return Block((number,), start, stop, torch.nn.Parameter(flat[first + start : first + stop]), (stop - start,))


def _shaped(places: Places, flat: torch.Tensor, number: int) -> Block:
    shape = tuple(places.tensor(number).shape)
    values = places.view(flat, number)
    return Block((number,), 0, len(values), torch.nn.Parameter(values.view(shape)), (len(values),))
