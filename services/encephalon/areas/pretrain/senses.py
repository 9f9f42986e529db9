"""Trains one network of vision or hearing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray
from torch import Tensor, nn

from encephalon.areas.hearing import Hearing
from encephalon.areas.pretrain.folds import Folds
from encephalon.areas.sense import Sense
from encephalon.areas.vision import Vision

__all__ = ["Budget", "Score", "Told", "batches", "make_sense", "raw_of", "train_sense"]

SHIFT = 2_000
"""Samples (a quarter of a second) by which a training sound moves at most; what it leaves is silent, as the padding
of a short one."""


JUDGED = 2_000
"""Pairs of the validation fold that choose the epoch of a sense."""


class Budget(NamedTuple):
    epochs: int
    pairs: int
    """Pairs in one epoch, drawn anew from the fold."""
    batch: int = 32
    rate: float = 2e-3
    """The peak of a one-cycle schedule of AdamW."""


class Score(NamedTuple):
    loss: float
    accuracy: float


Told = Callable[[int, Score], None]
"""Called after each epoch with its number and its score on the validation fold."""


def make_sense(area: str, code: str) -> Sense:
    return Vision(code) if area == "vision" else Hearing(code)


def train_sense(area: str, code: str, folds: Folds, budget: Budget, seed: int, told: Told) -> tuple[Sense, Score]:
    """Returns the epoch with the lowest validation loss. The same seed and number of threads give the same weights on
    one machine."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    sense = make_sense(area, code)
    sense.apply(_initialise)
    optimiser = torch.optim.AdamW(sense.parameters(), lr=budget.rate, weight_decay=1e-3)
    steps = budget.epochs * -(-min(budget.pairs, len(folds.senses)) // budget.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, budget.rate, total_steps=steps, pct_start=0.15)
    best, kept = Score(float("inf"), 0.0), copy.deepcopy(sense.state_dict())
    for epoch in range(budget.epochs):
        sense.train()
        chosen = random.permutation(folds.senses)[: budget.pairs]
        for part in batches(chosen, budget.batch):
            raw, labels = raw_of(sense, folds, part), torch.from_numpy(folds.pairs.labels[part])
            loss = nnf.cross_entropy(sense.see(sense.prepare(_varied(sense, raw, random))).logits, labels)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
        score = _score(sense, folds)
        told(epoch, score)
        if score.loss < best.loss:
            best, kept = score, copy.deepcopy(sense.state_dict())
    sense.load_state_dict(kept)
    return sense.eval(), best


def raw_of(sense: Sense, folds: Folds, places: NDArray[np.intp]) -> Tensor:
    """What the sense takes, of the pairs at `places`."""
    array = folds.pairs.images if isinstance(sense, Vision) else folds.pairs.audio
    return torch.from_numpy(array[places])


def batches(places: NDArray[np.intp], size: int) -> Iterator[NDArray[np.intp]]:
    """In order; a memory-mapped array is read fastest with sorted places."""
    for start in range(0, len(places), size):
        yield np.sort(places[start : start + size])


def _initialise(layer: nn.Module) -> None:
    """He et al. 2015: with torch's own default the signal fades within five blocks, and the first epochs learn
    nothing."""
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, a=0.01, nonlinearity="leaky_relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _varied(sense: Sense, raw: Tensor, random: np.random.Generator) -> Tensor:
    """Half of the sounds, moved in time."""
    if isinstance(sense, Vision):
        return raw
    moved = torch.zeros_like(raw)
    for row, shift in enumerate(random.integers(-SHIFT, SHIFT + 1, size=len(raw)) * random.integers(2, size=len(raw))):
        if shift >= 0:
            moved[row, shift:] = raw[row, : raw.shape[1] - shift]
        else:
            moved[row, :shift] = raw[row, -shift:]
    return moved


def _score(sense: Sense, folds: Folds) -> Score:
    sense.eval()
    loss = right = 0.0
    judged = folds.validation[:JUDGED]
    with torch.inference_mode():
        for part in batches(judged, 256):
            labels = torch.from_numpy(folds.pairs.labels[part])
            logits = sense.see(sense.prepare(raw_of(sense, folds, part))).logits
            loss += float(nnf.cross_entropy(logits, labels, reduction="sum"))
            right += float((logits.argmax(dim=1) == labels).sum())
    return Score(loss / len(judged), right / len(judged))
