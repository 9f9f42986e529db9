"""Vision: grey pictures of any size, seen by one of the paper's four networks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor

from encephalon.areas.network import Network
from encephalon.areas.sense import Sense
from encephalon.areas.torch_network import load_torch_network
from encephalon.core.errors import InvalidInput

__all__ = ["Vision", "load"]

# Of MNIST's training pictures, as a share of white (the usual figures); any grey picture is put on this scale.
MEAN, DEVIATION = 0.1307, 0.3081


class Vision(Sense):
    """Takes uint8 [N, height, width]; a picture of another size or proportion is stretched to the network's own."""

    area = "vision"
    input = "image"

    def prepare(self, raw: Tensor) -> Tensor:
        if 0 in raw.shape[1:]:
            raise InvalidInput(
                f"tensor 'image' came with shape {list(raw.shape)}; a picture needs at least one pixel", tensor="image"
            )
        pictures = (raw.to(torch.float32) / 255 - MEAN) / DEVIATION
        if pictures.shape[1:] == (self.side, self.side):
            return pictures
        # Antialiasing matters only where a picture shrinks.
        shrinks = max(pictures.shape[1:]) > self.side
        resized = nnf.interpolate(
            pictures.unsqueeze(1), (self.side, self.side), mode="bilinear", align_corners=False, antialias=shrinks
        )
        return resized.squeeze(1)


def load(code: str, weights: Path | bytes | None, arguments: Mapping[str, Any]) -> Network:
    return load_torch_network("vision", code, partial(Vision, code), weights, arguments)
