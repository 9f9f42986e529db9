"""How one share flows through the regions: what may be sent when, and what goes into it. Knows no network and no time.

Every region gets every micro-batch, in order: one that has nothing to compute in it gets a pass without tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import torch
from torch import Tensor

from encephalon.core.errors import Internal
from encephalon.learning.routing import Activations, Routing
from encephalon.learning.samples import Batch
from encephalon.training.pipeline.stages import StagePlan

__all__ = ["Direction", "Flow", "Lose", "Send"]

AHEAD: Final = 1
"""Forward passes that wait at a region beyond those that it may compute, so that it need not wait for this process."""

Direction = Literal["forward", "backward"]
Lose = Callable[[Mapping[str, Tensor], Tensor], tuple[Tensor, dict[str, int]]]
"""Outputs of the brain and labels to the sum of the losses, and how many were right by output."""


@dataclass(frozen=True, slots=True)
class Send:
    region: str
    direction: Direction
    micro_batch: int
    tensors: dict[str, Tensor]


@dataclass(slots=True)
class MicroBatch:
    """What is known of it while it is on its way."""

    activations: Activations
    outputs: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """By region, as far as it has answered."""
    asked: set[str] = field(default_factory=set)
    """Regions that had something to compute."""
    gradients: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """By region and input."""
    losses: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    """Gradients of the loss, by region and output."""


class Flow:
    """`parts` are the micro-batches. Without a divisor nothing goes backward."""

    def __init__(
        self, routing: Routing, stages: Mapping[str, StagePlan], parts: Sequence[Batch], lose: Lose, divisor: int | None
    ) -> None:
        self._routing, self._stages, self._parts, self._lose, self._divisor = routing, stages, parts, lose, divisor
        self._sent: dict[Direction, dict[str, int]] = {
            "forward": dict.fromkeys(stages, 0),
            "backward": dict.fromkeys(stages, 0),
        }
        self._came: dict[Direction, dict[str, int]] = {
            "forward": dict.fromkeys(stages, 0),
            "backward": dict.fromkeys(stages, 0),
        }
        self._micro: dict[int, MicroBatch] = {}
        self._judged = 0
        self._sources = {output.source.region for output in routing.outputs}
        self.loss = 0.0
        self.correct: dict[str, int] = {}

    @property
    def done(self) -> bool:
        """Every pass came back, and every loss is counted."""
        return self._judged == len(self._parts) and all(self._over(name) == len(self._parts) for name in self._stages)

    def has_backward(self, region: str) -> bool:
        return self._divisor is not None and self._stages[region].backward

    def owes(self, region: str) -> bool:
        """Whether a pass is at the region."""
        return any(self._came[way][region] < self._sent[way][region] for way in ("forward", "backward"))

    def due(self) -> Iterator[Send]:
        """What may be sent now; it counts as sent."""
        for name in self._stages:
            while self._may_go_backward(name):
                number = self._sent["backward"][name]
                self._sent["backward"][name] += 1
                yield Send(name, "backward", number, self._gradients(name, number))
            while self._may_go_forward(name):
                number = self._sent["forward"][name]
                self._sent["forward"][name] += 1
                yield Send(name, "forward", number, self._inputs(name, number))

    def came(self, region: str, direction: Direction, number: int, tensors: dict[str, Tensor]) -> None:
        """An answer. Internal, naming the region, for one that was not asked for; InvalidInput as `learning.losses`."""
        if number != self._came[direction][region] or number >= self._sent[direction][region]:
            raise Internal(
                f"region '{region}' answered the {direction} pass of micro-batch {number}, expected "
                f"{self._came[direction][region]}; its process is of another version",
                region=region,
            )
        micro = self._micro[number]
        if direction == "backward":
            self._check_gradients(region, micro, tensors)
            micro.gradients[region] = tensors
        else:
            micro.outputs[region] = tensors
            if region in micro.asked:
                micro.activations.give(region, self._leaves(region, tensors))
        self._came[direction][region] += 1
        self._judge()
        self._let_go()

    def _over(self, region: str) -> int:
        """Micro-batches of which the region, and whoever waits for it, needs nothing more."""
        if self.has_backward(region):
            return self._came["backward"][region]
        later = [self._over(consumer) for consumer in self._stages[region].consumers]
        return min([self._came["forward"][region], *later])

    def _may_go_forward(self, name: str) -> bool:
        number, stage = self._sent["forward"][name], self._stages[name]
        if number == len(self._parts) or number - self._over(name) >= stage.in_flight + AHEAD:
            return False
        return all(number < self._came["forward"][source] for source in stage.sources)

    def _may_go_backward(self, name: str) -> bool:
        number = self._sent["backward"][name]
        if not self.has_backward(name) or number >= self._judged or number >= self._came["forward"][name]:
            return False
        return all(
            number < self._came["backward"][consumer]
            for consumer in self._stages[name].consumers
            if self.has_backward(consumer)
        )

    def _inputs(self, name: str, number: int) -> dict[str, Tensor]:
        if number not in self._micro:
            self._micro[number] = MicroBatch(self._routing.begin(self._parts[number].inputs))
        micro = self._micro[number]
        inputs = micro.activations.inputs_of(name)
        if inputs is None:
            return {}
        micro.asked.add(name)
        return inputs

    def _leaves(self, region: str, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """With respect to what the brain gives, the loss has gradients."""
        if self.has_backward(region) and region in self._sources:
            for each in outputs.values():
                if each.is_floating_point():
                    each.requires_grad_()
        return outputs

    def _judge(self) -> None:
        """The losses of the next micro-batches of which every output is there."""
        while all(self._judged < self._came["forward"][region] for region in self._sources):
            if self._judged == len(self._parts):
                return
            micro, labels = self._micro[self._judged], self._parts[self._judged].labels
            total, correct = self._lose(micro.activations.outputs(), labels)
            self.loss += float(total.detach())
            for name, count in correct.items():
                self.correct[name] = self.correct.get(name, 0) + count
            if self._divisor is not None and total.requires_grad:
                self._differentiate(micro, total / self._divisor)
            self._judged += 1

    def _differentiate(self, micro: MicroBatch, total: Tensor) -> None:
        leaves = {
            (region, name): each
            for region, outputs in micro.outputs.items()
            for name, each in outputs.items()
            if each.requires_grad
        }
        found: Sequence[Tensor | None] = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        micro.losses = {key: each for key, each in zip(leaves, found, strict=True) if each is not None}

    def _gradients(self, name: str, number: int) -> dict[str, Tensor]:
        """With respect to the region's outputs: that of the loss, then those of the pathways in the manifest's order,
        so that the sum always rounds the same."""
        micro = self._micro[number]
        sums = {tensor: each for (region, tensor), each in micro.losses.items() if region == name}
        for path in self._routing.brain.pathways:
            found = micro.gradients.get(path.target.region, {}).get(path.target.tensor)
            if path.source.region == name and found is not None:
                before = sums.get(path.source.tensor)
                sums[path.source.tensor] = found if before is None else before + found
        return sums

    def _check_gradients(self, region: str, micro: MicroBatch, gradients: Mapping[str, Tensor]) -> None:
        sources = {path.target.tensor: path.source for path in self._routing.incoming[region] if path.source.region}
        for name, gradient in gradients.items():
            source = sources.get(name)
            sent = micro.outputs[source.region].get(source.tensor) if source is not None else None
            if sent is None or (sent.shape, sent.dtype) != (gradient.shape, gradient.dtype):
                raise Internal(
                    f"region '{region}' answered with a gradient '{name[:100]}' of {gradient.dtype} "
                    f"{list(gradient.shape)}, which is not what it was sent",
                    region=region,
                )

    def _let_go(self) -> None:
        least = min(self._judged, *(self._over(name) for name in self._stages))
        for number in [number for number in self._micro if number < least]:
            del self._micro[number]
