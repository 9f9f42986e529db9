"""How activations of a batch go from region to region: the same for a brain in one process and for a pipeline.

A row of a batch may lack an input. What a region gives for it is there when all inputs are that it needs; when it needs
none, when one is. `NAME.present`, bool [rows], goes along with what is not there in every row.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import torch
from torch import Tensor

from encephalon.core.errors import InvalidInput
from encephalon.library.brains import Brain, Pathway

__all__ = ["LOGITS", "PRESENT", "Activations", "Routing"]

PRESENT: Final = ".present"
LOGITS: Final = ".logits"
PROBABILITIES: Final = "probabilities"
"""What the areas call an output of one number from 0 to 1 per class."""


class Routing:
    """Of the regions that the targets draw on, in running order."""

    def __init__(self, brain: Brain, targets: Mapping[str, float]) -> None:
        """targets: outputs of the brain to the weight of their losses; when empty, the first output. InvalidInput for
        one that the brain does not have."""
        self.brain = brain
        known = [output.name for output in brain.outputs]
        if unknown := sorted(set(targets) - set(known)):
            raise InvalidInput(f"brain '{brain.name}' has no output '{unknown[0]}'; it has {', '.join(known)}")
        self.targets = dict(targets or {known[0]: 1.0})
        self.regions = _needed(brain, {each.source.region for each in brain.outputs if each.name in self.targets})
        self.outputs = tuple(output for output in brain.outputs if output.source.region in self.regions)
        self.incoming: dict[str, tuple[Pathway, ...]] = {
            name: tuple(path for path in brain.pathways if path.target.region == name) for name in self.regions
        }
        self.inputs = tuple(
            spec for spec in brain.inputs if any(self._feeds(path, spec.name) for path in brain.pathways)
        )
        """Inputs of the brain that these regions use."""

    def begin(self, inputs: Mapping[str, Tensor]) -> Activations:
        """`inputs` are those of the brain, [rows, ...], optional ones perhaps with a mask, or left out."""
        return Activations(self, inputs)

    def needs(self, region: str, tensor: str) -> bool:
        """Whether a region cannot do without this input."""
        contract = self.brain.region(region).contract
        return contract is None or not any(spec.name == tensor and spec.optional for spec in contract.inputs)

    def _feeds(self, path: Pathway, input: str) -> bool:
        return not path.source.region and path.source.tensor == input and path.target.region in self.regions


class Activations:
    """Of one batch. Ask for the inputs of each region in running order, and give its outputs."""

    def __init__(self, routing: Routing, inputs: Mapping[str, Tensor]) -> None:
        self._routing = routing
        self._held: dict[str, Mapping[str, Tensor]] = {"": inputs}
        self._masks: dict[str, Tensor | None] = {}

    def inputs_of(self, region: str) -> dict[str, Tensor] | None:
        """What the region takes; None when it is not asked, because what it needs is not there in any row."""
        found: dict[str, Tensor] = {}
        needed: list[Tensor | None] = []
        others: list[Tensor | None] = []
        for path in self._routing.incoming[region]:
            name, value, mask = path.target.tensor, *self._taken(path)
            required = self._routing.needs(region, name)
            if value is None:
                if required:
                    return None
                continue
            found[name] = value
            if mask is not None and not required:
                found[f"{name}{PRESENT}"] = mask
            (needed if required else others).append(mask)
        mask = _all(needed) if needed else _any(others)
        if not found or (mask is not None and not bool(mask.any())):
            return None
        self._masks[region] = None if mask is None or bool(mask.all()) else mask
        return found

    def give(self, region: str, outputs: Mapping[str, Tensor]) -> None:
        """What the region answered, with its logits."""
        self._held[region] = outputs

    def outputs(self) -> dict[str, Tensor]:
        """The brain's, as far as they are there; for each `NAME.logits` where there are any, and `NAME.present` when
        not every row has it. A target that the area does not call probabilities is taken for logits."""
        found: dict[str, Tensor] = {}
        for output in self._routing.outputs:
            held, tensor = self._held.get(output.source.region, {}), output.source.tensor
            if tensor not in held:
                continue
            found[output.name] = held[tensor]
            logits = held.get(f"{tensor}{LOGITS}")
            if logits is None and output.name in self._routing.targets and tensor != PROBABILITIES:
                logits = held[tensor]
            if logits is not None:
                found[f"{output.name}{LOGITS}"] = logits
            if (mask := self._masks.get(output.source.region)) is not None:
                found[f"{output.name}{PRESENT}"] = mask
        return found

    def _taken(self, path: Pathway) -> tuple[Tensor | None, Tensor | None]:
        """Value and mask; (None, None) when no row has it."""
        source = path.source
        held = self._held.get(source.region, {})
        value = held.get(source.tensor)
        mask = self._masks.get(source.region) if source.region else held.get(f"{source.tensor}{PRESENT}")
        if value is None or (mask is not None and not bool(mask.any())):
            return None, None
        return value, None if mask is None or bool(mask.all()) else mask


def _needed(brain: Brain, wanted: set[str]) -> tuple[str, ...]:
    for region in reversed(brain.regions):
        if region.name in wanted:
            wanted |= {path.source.region for path in brain.pathways if path.target.region == region.name}
    return tuple(region.name for region in brain.regions if region.name in wanted)


def _all(masks: Collection[Tensor | None]) -> Tensor | None:
    """Rows that have everything; None is every row."""
    there = [mask for mask in masks if mask is not None]
    return torch.stack(there).all(dim=0) if there else None


def _any(masks: Collection[Tensor | None]) -> Tensor | None:
    """Rows that have something."""
    there = [mask for mask in masks if mask is not None]
    return torch.stack(there).any(dim=0) if there and len(there) == len(masks) else None
