"""What is minimised: the sum of the losses of samples."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as nnf
from torch import Tensor

from encephalon.core.errors import InvalidInput
from encephalon.learning.routing import LOGITS, PRESENT
from encephalon.learning.settings import LearningSettings

__all__ = ["losses"]

LEAST = 1e-7
"""A probability below it counts as this: the logarithm of 0 would stop the run, and float32 rounds to it."""


def losses(
    outputs: Mapping[str, Tensor],
    labels: Tensor,
    settings: LearningSettings,
    targets: Mapping[str, float] | None = None,
) -> tuple[Tensor, dict[str, int]]:
    """The sum over samples and targets, weighted, float32 []; and by output of classes how many rows were right.

    `outputs` are those of a brain, [rows, ...]; `NAME.logits` is preferred to the logarithm of NAME, which must then be
    a probability. Rows that `NAME.present` excludes count nothing. `labels` are int64 [rows] (cross_entropy), or
    numbers in the shape of the target (mse). `targets` are those of the routing, by default those of the settings, or
    the first output; one that no row has counts nothing. InvalidInput, naming the output, for one that does not fit.
    """
    weights = targets or settings.targets or {_first(outputs): 1.0}
    total = labels.new_zeros((), dtype=torch.float32)
    for name, weight in weights.items():
        if name in outputs:
            part = _classes if settings.loss == "cross_entropy" else _squares
            total = total + weight * part(name, outputs, labels)
    correct = {} if settings.loss == "mse" else _correct(outputs, labels, weights)
    return total, correct


def _first(outputs: Mapping[str, Tensor]) -> str:
    return next((name for name in outputs if not name.endswith((LOGITS, PRESENT))), "")


def _classes(name: str, outputs: Mapping[str, Tensor], labels: Tensor) -> Tensor:
    logits, chosen = _rows(name, _logits(name, outputs), outputs, labels)
    # Labels are looked at where they come in; torch would end the process' share with an index error.
    if logits.dim() != 2 or (len(chosen) and int(chosen.max()) >= logits.shape[1]):
        raise InvalidInput(
            f"output '{name}' has shape {list(logits.shape)}, which does not fit label {int(chosen.max())}; it needs "
            "one column per class",
            output=name,
        )
    return nnf.cross_entropy(logits, chosen, reduction="sum")


def _squares(name: str, outputs: Mapping[str, Tensor], labels: Tensor) -> Tensor:
    """The mean over a sample's numbers, summed over samples."""
    found, wanted = _rows(name, outputs[name].float(), outputs, labels)
    if found.numel() != wanted.numel():
        raise InvalidInput(
            f"output '{name}' has shape {list(found.shape)}, and what it should be {list(wanted.shape)}; mse needs as "
            "many numbers in both (classes are learned with loss cross_entropy)",
            output=name,
        )
    return (found - wanted.reshape(found.shape).float()).square().flatten(1).mean(dim=1).sum()


def _logits(name: str, outputs: Mapping[str, Tensor]) -> Tensor:
    logits = outputs.get(f"{name}{LOGITS}")
    return logits.float() if logits is not None else outputs[name].float().clamp(min=LEAST).log()


def _rows(name: str, values: Tensor, outputs: Mapping[str, Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
    mask = outputs.get(f"{name}{PRESENT}")
    return (values, labels) if mask is None else (values[mask], labels[mask])


@torch.no_grad()
def _correct(outputs: Mapping[str, Tensor], labels: Tensor, targets: Mapping[str, float]) -> dict[str, int]:
    classes = [name for name in outputs if name in targets or f"{name}{LOGITS}" in outputs]
    found = {name: _rows(name, outputs.get(f"{name}{LOGITS}", outputs[name]), outputs, labels) for name in classes}
    return {name: int(_right(values, wanted).sum()) for name, (values, wanted) in found.items()}


def _right(values: Tensor, wanted: Tensor) -> Tensor:
    """By sample; one with a value that is not a number is never right, wherever argmax finds its greatest."""
    return (values.argmax(dim=1) == wanted) & ~values.isnan().any(dim=1)
