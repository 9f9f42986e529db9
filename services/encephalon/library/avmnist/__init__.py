"""The audio-visual MNIST data set: builds it from raw files, and opens what was built. Trains nothing and knows no
torch."""

from encephalon.library.avmnist.builder import build
from encephalon.library.avmnist.dataset import Description, Pairs, SplitName, check, describe, open_split
from encephalon.library.avmnist.obtain import get
from encephalon.library.avmnist.parameters import Parameters
from encephalon.library.avmnist.progress import Progress, silent

__all__ = [
    "Description",
    "Pairs",
    "Parameters",
    "Progress",
    "SplitName",
    "build",
    "check",
    "describe",
    "get",
    "open_split",
    "silent",
]
