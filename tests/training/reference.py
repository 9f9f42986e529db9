"""What a run must come to: one process that computes each share's gradients for itself and adds them as shards do.

reference = Reference.of(model, losses, "AdamW", {"lr": 1e-3})
for epoch, parts in batches(1000, 96, workers=3, updates=50):
    reference.update(epoch, parts)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Losses", "Reference", "batches", "distance", "equal_parts", "same_bits"]

Losses = Callable[[int, range], Tensor]
"""Forward pass over these samples of an epoch: the sum of their losses."""


def equal_parts(start: int, stop: int, workers: int) -> list[range]:
    """The samples in `workers` runs that differ by one at most, the larger ones first; none is empty."""
    size, larger = divmod(stop - start, workers)
    parts = []
    for rank in range(workers):
        end = start + size + (rank < larger)
        parts.append(range(start, end))
        start = end
    return [part for part in parts if len(part)]


def batches(samples: int, batch_size: int, *, workers: int, updates: int) -> Iterator[tuple[int, list[range]]]:
    """Epoch and parts of each update; the last batch of an epoch holds what is left."""
    per_epoch = -(-samples // batch_size)
    for update in range(updates):
        epoch, at = divmod(update, per_epoch)
        yield epoch, equal_parts(at * batch_size, min((at + 1) * batch_size, samples), workers)


class Reference:
    """Trains a model's tensors in place. `learned` and `running` are its parameters and floating-point buffers."""

    def __init__(
        self,
        learned: Mapping[str, Tensor],
        running: Mapping[str, Tensor],
        losses: Losses,
        optimizer: str = "SGD",
        arguments: Mapping[str, Any] | None = None,
        *,
        schedule: str = "",
        schedule_arguments: Mapping[str, Any] | None = None,
        clip_norm: float | None = None,
    ) -> None:
        self.learned, self.running, self.losses, self.clip_norm = dict(learned), dict(running), losses, clip_norm
        self.norm = 0.0
        # The kernel of the optimiser for lists of tensors rounds differently from that for one.
        options = {**(arguments or {}), "foreach": False}
        self._optimizer = getattr(torch.optim, optimizer)(list(self.learned.values()), **options)
        self._schedule = (
            getattr(torch.optim.lr_scheduler, schedule)(self._optimizer, **(schedule_arguments or {}))
            if schedule
            else None
        )

    @classmethod
    def of(cls, model: nn.Module, losses: Losses, optimizer: str = "SGD", *arguments: Any, **more: Any) -> Reference:
        learned = {name: each for name, each in model.named_parameters() if each.requires_grad}
        running = {name: each for name, each in model.named_buffers() if each.is_floating_point()}
        return cls(learned, running, losses, optimizer, *arguments, **more)

    def update(self, epoch: int, parts: Sequence[range]) -> None:
        """One update of all parts, in the order of their ranks."""
        divisor = sum(len(part) for part in parts)
        before = {name: each.clone() for name, each in self.running.items()}
        shares = []
        for part in parts:
            for name, each in self.running.items():
                each.copy_(before[name])
            shares.append(self._share(epoch, part, divisor))
        for name, parameter in self.learned.items():
            parameter.grad = _added([share[name] for share in shares])
        for name, each in self.running.items():
            total = _added([share[name] for share in shares])
            assert total is not None
            each.copy_(total)
        self._clip()
        self._optimizer.step()
        if self._schedule is not None:
            self._schedule.step()

    def state(self) -> dict[str, Tensor]:
        """Copies of parameters and buffers."""
        return {name: each.detach().clone() for name, each in {**self.learned, **self.running}.items()}

    def _share(self, epoch: int, part: range, divisor: int) -> dict[str, Tensor | None]:
        for each in self.learned.values():
            each.grad = None
        (self.losses(epoch, part) / divisor).backward()  # type: ignore[no-untyped-call]
        values = {name: each.detach() * (len(part) / divisor) for name, each in self.running.items()}
        gradients = {name: None if each.grad is None else each.grad.clone() for name, each in self.learned.items()}
        return {**gradients, **values}

    def _clip(self) -> None:
        gradients = [each.grad for each in self.learned.values() if each.grad is not None]
        self.norm = math.sqrt(sum(float(each.double().square().sum()) for each in gradients))
        if self.clip_norm is not None and self.norm > self.clip_norm:
            for each in gradients:
                each.mul_(self.clip_norm / self.norm)


def _added(parts: Sequence[Tensor | None]) -> Tensor | None:
    there = [part for part in parts if part is not None]
    if not there:
        return None
    total = there[0].clone()
    for part in there[1:]:
        total.add_(part)
    return total


def same_bits(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """The names whose tensors differ in a bit (or are missing on one side); [] is what a test wants."""
    unequal = found.keys() ^ expected.keys()
    both = found.keys() & expected.keys()
    unequal |= {name for name in both if not torch.equal(_bits(found[name]), _bits(expected[name]))}
    return sorted(unequal)


def distance(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """The largest relative distance over all tensors: the norm of the difference over that of what is expected."""
    return max(
        float((found[name].double() - each.double()).norm() / each.double().norm().clamp_min(1e-12))
        for name, each in expected.items()
    )


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().view(torch.int32).reshape(-1)
