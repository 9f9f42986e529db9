"""Parts of the training split; the test split is never looked at while something is trained or chosen.

The folds share no picture and no spoken recording, so what the association learns from are features of pairs that the
senses have not seen. Otherwise it would trust each sense as much as that sense has learned by heart.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from encephalon.core.errors import InvalidInput
from encephalon.library import avmnist

__all__ = ["Folds", "open_folds"]

# Recording indices (of 0-39, for every speaker and digit) of each fold.
SENSES, ASSOCIATION, VALIDATION = range(30), range(30, 36), range(36, 40)


class Folds(NamedTuple):
    pairs: avmnist.Pairs
    senses: NDArray[np.intp]
    """Places in `pairs`; the senses learn from these."""
    association: NDArray[np.intp]
    """The association learns from these."""
    validation: NDArray[np.intp]
    """Epochs are chosen by these."""


def open_folds(data: Path) -> Folds:
    """Raises `InvalidInput` when the data set is too small to be divided."""
    description = avmnist.describe(data)
    pairs = avmnist.open_split(data, "train")
    index = np.array([int(name.rsplit("_", 1)[1].removesuffix(".wav")) for name in description.recordings])
    spoken = index[pairs.recordings]
    folds = [np.flatnonzero(np.isin(spoken, fold)) for fold in (SENSES, ASSOCIATION, VALIDATION)]
    if any(len(fold) == 0 for fold in folds):
        raise InvalidInput(
            f"{data} has {len(pairs)} training pairs, too few to divide into three folds; build a larger one"
        )
    return Folds(pairs, *folds)
