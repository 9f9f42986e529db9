"""A torch.optim optimiser over the slices of a shard."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.core.errors import FailedPrecondition, InvalidInput
from encephalon.learning.checkpoint import Held, Scalars, Slots
from encephalon.learning.optimizers import check, read_arguments, whole
from encephalon.parameter_server.blocks import Block, apart, blocks_of
from encephalon.parameter_server.gradient import Gradient
from encephalon.parameter_server.places import Places
from encephalon.parameter_server.schedule import Schedule

__all__ = ["ShardOptimizer"]

BATCH: Final = 1 << 20
"""Elements that are added and stepped at once, unless a single parameter has more: 4 MiB of sums."""


class ShardOptimizer:
    """Steps the learned slices in place, bit-equal to the same optimiser over uncut tensors.

    Unsupported and InvalidInput as `learning.optimizers.check`, and with torch's reason for wrong arguments.
    """

    def __init__(self, wanted: pb.Optimizer, places: Places, flat: torch.Tensor, held: Held | None = None) -> None:
        """flat: float32 [places.elements], the parameters. held: slots and schedule to go on with."""
        check(wanted)
        self.name = wanted.name
        self._places = places
        self._flat = flat
        self._whole = whole(wanted)
        if self._whole and any(not _uncut(places, number) for number in places.numbers):
            raise FailedPrecondition(
                f"optimizer {wanted.name} looks at tensors as matrices, but the layout has cut them; plan it with whole"
            )
        self._blocks = blocks_of(places, flat, whole=self._whole, alike=lambda number: _scalars_of(held, number))
        # A shard without a parameter has a rate all the same, and the optimisers want something.
        none = torch.nn.Parameter(torch.zeros(1, 1))
        self._scratch = torch.empty(0)
        self._optimizer = _made(wanted, [block.parameter for block in self._blocks] or [none])
        self._schedule = Schedule(wanted, self._optimizer) if wanted.schedule else None
        if held is not None and held.version > 0:
            self._restore(held)

    @property
    def learning_rate(self) -> float:
        return float(self._optimizer.param_groups[0]["lr"])

    @property
    def slot_bytes(self) -> int:
        """Only in the thread that steps."""
        states = self._optimizer.state.values()
        return sum(value.nbytes for state in states for value in state.values() if isinstance(value, torch.Tensor))

    def step(self, gradients: Mapping[int, Gradient | None]) -> None:
        """gradients: by slice; None where there is none, which leaves parameter and slots as they are."""
        if any(block.torn(gradients) for block in self._blocks):
            self._tear(gradients)
        for batch in _batches(self._blocks) or [[]]:  # a schedule wants at least one step
            self._step(batch, gradients)
        if self._schedule is not None:
            self._schedule.step()

    def _step(self, blocks: Sequence[Block], gradients: Mapping[int, Gradient | None]) -> None:
        """Of these blocks alone, so that the sums of all gradients need not be there at the same time."""
        needed = sum(block.parameter.numel() for block in blocks)
        if len(self._scratch) < needed:
            self._scratch = torch.empty(needed)
        start = 0
        for block in blocks:
            size = block.parameter.numel()
            block.parameter.grad = block.gradient(gradients, self._scratch[start : start + size])
            start += size
        group = self._optimizer.param_groups[0]
        all_of_them = group["params"]
        try:
            group["params"] = [block.parameter for block in blocks]
            self._optimizer.step()
        finally:
            group["params"] = all_of_them
        for block in blocks:
            block.parameter.grad = None

    def slots(self, number: int) -> tuple[Slots, Scalars]:
        """Of one slice: tensors, flat where they can be cut; numbers that its elements share."""
        covering = [block for block in self._blocks if number in block.numbers]
        states = [self._optimizer.state.get(block.parameter, {}) for block in covering]
        slots: Slots = {}
        scalars: Scalars = {}
        for name in states[0] if states else ():
            value = states[0][name]
            if isinstance(value, torch.Tensor) and value.dim() > 0:
                parts = [block.part(state[name], number) for block, state in zip(covering, states, strict=True)]
                slots[name] = parts[0] if len(parts) == 1 else torch.cat(parts)
            elif isinstance(value, torch.Tensor):
                scalars[name] = [str(value.dtype).removeprefix("torch."), value.item()]
            elif value is not None:
                scalars[name] = value
        return slots, scalars

    def schedule(self) -> dict[str, Any] | None:
        return None if self._schedule is None else self._schedule.state()

    def _restore(self, held: Held) -> None:
        if held.optimizer != self.name:
            raise FailedPrecondition(
                f"the checkpoint was written with optimizer {held.optimizer}, its slots do not fit {self.name}"
            )
        for block in self._blocks:
            state = {name: _number(value) for name, value in held.scalars.get(block.numbers[0], {}).items()}
            slots = [held.slots.get(number, {}) for number in block.numbers]
            for name in slots[0]:
                state[name] = block.joined([each[name] for each in slots])
            if state:
                self._optimizer.state[block.parameter] = state
        if self._schedule is not None:
            if held.schedule is None:
                raise FailedPrecondition("the checkpoint was written without a schedule, so it cannot go on with one")
            self._schedule.restore(held.schedule)

    def _tear(self, gradients: Mapping[int, Gradient | None]) -> None:
        """Slices of a block of which some have no gradient become blocks of their own, with their part of the slots."""
        blocks: list[Block] = []
        for block in self._blocks:
            if not block.torn(gradients):
                blocks.append(block)
                continue
            state = self._optimizer.state.pop(block.parameter, {})
            for single in apart(block, self._places, self._flat):
                if state:
                    self._optimizer.state[single.parameter] = _cut(state, block, single.numbers[0])
                blocks.append(single)
        self._blocks = blocks
        self._optimizer.param_groups[0]["params"] = [block.parameter for block in blocks]


def _batches(blocks: Sequence[Block]) -> list[list[Block]]:
    batches: list[list[Block]] = []
    size = BATCH
    for block in blocks:
        if size + block.parameter.numel() > BATCH:
            batches.append([])
            size = 0
        batches[-1].append(block)
        size += block.parameter.numel()
    return batches


def _made(wanted: pb.Optimizer, parameters: Sequence[torch.nn.Parameter]) -> torch.optim.Optimizer:
    kind = getattr(torch.optim, wanted.name)
    arguments = read_arguments("optimizer", wanted.name, wanted.arguments)
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}
    # The implementations over lists of tensors round otherwise, and copy.
    plain = {name: False for name in ("foreach", "fused") if name in inspect.signature(kind).parameters}
    try:
        made = kind(parameters, **{**given, **plain})
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise InvalidInput(f"optimizer {wanted.name} does not take its arguments: {error}", name=wanted.name) from error
    if not isinstance(made, torch.optim.Optimizer):
        raise InvalidInput(f"{wanted.name} is no optimiser of torch.optim", name=wanted.name)
    return made


def _cut(state: dict[str, Any], block: Block, number: int) -> dict[str, Any]:
    return {
        name: (value.clone() if value.dim() == 0 else block.part(value, number).clone())
        if isinstance(value, torch.Tensor)
        else value
        for name, value in state.items()
    }


def _number(value: Any) -> Any:
    return torch.tensor(value[1], dtype=getattr(torch, value[0])) if isinstance(value, list) else value


def _scalars_of(held: Held | None, number: int) -> object:
    """Slices are laid together only when they share these."""
    return None if held is None else (held.scalars.get(number), sorted(held.slots.get(number, {})))


def _uncut(places: Places, number: int) -> bool:
    cut = places.layout.slices[number]
    shape = places.tensor(number).shape
    size = 1
    for length in shape:
        size *= length
    return cut.start == 0 and cut.stop == size
