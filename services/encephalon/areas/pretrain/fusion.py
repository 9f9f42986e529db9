"""Trains the association on the features of two senses that no longer change."""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray
from torch import Tensor

from encephalon.areas.association import LateFusion
from encephalon.areas.pretrain.folds import Folds
from encephalon.areas.pretrain.senses import Score, Told, batches, raw_of
from encephalon.areas.sense import Sense

__all__ = ["Senses", "train_association"]

MISSING = 0.25
"""Share of the training pairs that lack the picture, and as many that lack the sound (modality dropout)."""

BATCH = 128
RATE = 1e-3


class Senses(NamedTuple):
    vision: Sense
    hearing: Sense


class _Fold(NamedTuple):
    image: Tensor
    audio: Tensor
    labels: Tensor

    def inputs(self, rows: Tensor, image: Tensor, audio: Tensor) -> dict[str, Tensor]:
        """What the association takes, of `rows`, with the two masks of the same length."""
        return {
            "image_features": self.image[rows],
            "image_features.present": image,
            "audio_features": self.audio[rows],
            "audio_features.present": audio,
        }


def train_association(senses: Senses, folds: Folds, epochs: int, seed: int, told: Told) -> tuple[LateFusion, Score]:
    """Returns the epoch with the lowest validation loss, the mean of three: with both senses, and with either alone."""
    learned, judged = (_perceive(senses, folds, places) for places in (folds.association, folds.validation))
    torch.manual_seed(seed)
    association = LateFusion(senses.vision.features, senses.hearing.features)
    optimiser = torch.optim.AdamW(association.parameters(), lr=RATE, weight_decay=1e-2)
    random = np.random.default_rng(seed)
    best, kept = Score(float("inf"), 0.0), copy.deepcopy(association.state_dict())
    for epoch in range(epochs):
        association.train()
        for part in batches(random.permutation(len(learned.labels)), BATCH):
            rows, fate = torch.from_numpy(part), torch.from_numpy(random.random(len(part)))
            inputs = learned.inputs(rows, fate >= MISSING, (fate < MISSING) | (fate >= 2 * MISSING))
            loss = nnf.cross_entropy(association.logits(inputs), learned.labels[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        score = _score(association, judged)
        told(epoch, score)
        if score.loss < best.loss:
            best, kept = score, copy.deepcopy(association.state_dict())
    association.load_state_dict(kept)
    return association.eval(), best


def _perceive(senses: Senses, folds: Folds, places: NDArray[np.intp]) -> _Fold:
    def features(sense: Sense) -> Tensor:
        parts = (sense.prepare(raw_of(sense, folds, part)) for part in batches(places, 256))
        return torch.cat([sense.see(part).features for part in parts])

    with torch.no_grad():
        return _Fold(features(senses.vision), features(senses.hearing), torch.from_numpy(folds.pairs.labels[places]))


def _score(association: LateFusion, fold: _Fold) -> Score:
    """Loss: the mean over both, image alone, audio alone. Accuracy: with both."""
    association.eval()
    rows = torch.arange(len(fold.labels))
    yes, no = torch.ones(len(rows), dtype=torch.bool), torch.zeros(len(rows), dtype=torch.bool)
    with torch.inference_mode():
        answers = [association.logits(fold.inputs(rows, *masks)) for masks in ((yes, yes), (yes, no), (no, yes))]
        losses = [float(nnf.cross_entropy(answer, fold.labels)) for answer in answers]
    return Score(sum(losses) / 3, float((answers[0].argmax(dim=1) == fold.labels).float().mean()))
