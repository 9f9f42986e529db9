"""Hearing: raw 8 kHz sound of any length, turned into a log spectrogram inside the network and heard by one of the
paper's four."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch.nn.functional as nnf
from torch import Tensor

from encephalon.areas.network import Network
from encephalon.areas.sense import Sense
from encephalon.areas.spectrogram import SIDE, LogSpectrogram
from encephalon.areas.torch_network import load_torch_network

__all__ = ["Hearing", "load"]


class Hearing(Sense):
    """Takes int16 [N, samples]; LeNet3 sees means over 4x4 cells of the spectrogram."""

    area = "hearing"
    input = "audio"

    def __init__(self, code: str, classes: int = 10) -> None:
        super().__init__(code, classes)
        self.spectrogram = LogSpectrogram()

    def prepare(self, raw: Tensor) -> Tensor:
        pictures: Tensor = self.spectrogram(raw)
        return pictures if self.side == SIDE else nnf.avg_pool2d(pictures, SIDE // self.side)


def load(code: str, weights: Path | bytes | None, arguments: Mapping[str, Any]) -> Network:
    return load_torch_network("hearing", code, partial(Hearing, code), weights, arguments)
