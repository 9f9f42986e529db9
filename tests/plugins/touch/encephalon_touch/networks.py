"""What computes: numpy is enough here; torch would be imported in this module."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from encephalon.areas import Arrays, Network
from encephalon.core.errors import InvalidInput
from encephalon.library.areas import find_network

__all__ = ["Brightness", "Strongest", "load_touch", "load_vision"]


class Strongest:
    """What presses below `threshold` kilopascal is not felt."""

    def __init__(self, threshold: float = 0.0) -> None:
        self.contract = find_network("touch", "001")
        self._threshold = threshold

    def __call__(self, inputs: Arrays) -> Arrays:
        pressure = inputs["pressure"].astype(np.float32)
        felt = np.where(pressure < self._threshold, np.float32(0), pressure)
        return {"strongest": felt.argmax(axis=1, keepdims=True), "total": felt.sum(axis=1, keepdims=True)}


class Brightness:
    """Two classes: dark and bright."""

    def __init__(self) -> None:
        self.contract = find_network("vision", "101")

    def __call__(self, inputs: Arrays) -> Arrays:
        bright = (inputs["image"].mean(axis=(1, 2)) / 255).astype(np.float32)[:, None]
        return {"features": bright, "probabilities": np.concatenate([1 - bright, bright], axis=1)}


def load_touch(code: str, weights: Path | bytes | None, arguments: Mapping[str, Any]) -> Network:
    if unknown := arguments.keys() - {"threshold"}:
        raise InvalidInput(f"touch/{code} has no argument '{min(unknown)}'; it takes threshold")
    return Strongest(**arguments)


def load_vision(code: str, weights: Path | bytes | None, arguments: Mapping[str, Any]) -> Network:
    return Brightness()
