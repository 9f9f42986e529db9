"""Modality dropout: samples that lack an optional input, drawn so that it does not matter who computes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from encephalon.learning.routing import PRESENT
from encephalon.library.datasets.order import mixed

__all__ = ["drop"]


def drop(
    inputs: dict[str, Tensor], names: Sequence[str], share: float, *, seed: int, epoch: int, start: int
) -> dict[str, Tensor]:
    """`inputs` of the samples from place `start` of an epoch on, with masks; a sample lacks each of `names` with
    probability `share` (below 0.5), and never all of several.

    A sample's draw is a place on a circle; it lacks those inputs whose arc of this length it falls on. The arcs begin
    at equal distances, so that two of them meet as seldom as they can, and never all.
    """
    if not names or not share:
        return inputs
    rows = len(next(iter(inputs.values())))
    draws = _draws(rows, seed, epoch, start)
    found = dict(inputs)
    for at, name in enumerate(names):
        present = torch.from_numpy((draws - at / len(names)) % 1.0 >= share)
        if not bool(present.all()):
            found[name][~present] = 0
            found[f"{name}{PRESENT}"] = present
    return found


def _draws(rows: int, seed: int, epoch: int, start: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """From 0 to 1, one per place."""
    state = np.zeros(1, np.uint64)
    for part in (seed, epoch):
        state = mixed(state ^ np.uint64(part))
    places = np.arange(start, start + rows, dtype=np.uint64)
    return mixed(state ^ mixed(places)) / 2.0**64
