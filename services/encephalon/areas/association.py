"""Association: late fusion of what was seen and what was heard, with an answer also when one of them is missing."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from encephalon.areas.arguments import whole
from encephalon.areas.contracts import narrowed
from encephalon.areas.network import Network
from encephalon.areas.torch_network import AreaModule, load_torch_network
from encephalon.core.errors import InvalidInput
from encephalon.library.areas import find_network

__all__ = ["LateFusion", "Modality", "load"]

MOST, MOST_WIDTH = 1 << 16, 1 << 12


class Modality(nn.Module):
    """Projects one feature vector into the common space; a row without one gets a learned embedding in its place."""

    def __init__(self, name: str, features: int, width: int) -> None:
        super().__init__()
        self.name = name
        self.features = features
        self.project = nn.Sequential(nn.LayerNorm(features), nn.Linear(features, width), nn.LeakyReLU())
        self.missing = nn.Parameter(torch.zeros(width))

    def reset_parameters(self) -> None:
        """Of its own; what is below it has this too."""
        nn.init.zeros_(self.missing)

    def forward(self, inputs: Mapping[str, Tensor], rows: int) -> Tensor:
        """float32 [rows, width]."""
        value, present = inputs.get(self.name), inputs.get(f"{self.name}.present")
        if value is None or (present is not None and not bool(present.any())):
            return self.missing.expand(rows, -1)
        if value.shape[1] != self.features:
            raise InvalidInput(
                f"tensor '{self.name}' came with {value.shape[1]} columns, expected {self.features}", tensor=self.name
            )
        projected: Tensor = self.project(value)
        return projected if present is None else torch.where(present[:, None], projected, self.missing)


class LateFusion(AreaModule):
    """The two projections side by side, then two linear layers."""

    def __init__(self, image_features: int, audio_features: int, width: int = 64, classes: int = 10) -> None:
        super().__init__()
        whole(MOST, image_features=image_features, audio_features=audio_features, width=width, classes=classes)
        whole(MOST_WIDTH, width=width)
        self.image = Modality("image_features", image_features, width)
        self.audio = Modality("audio_features", audio_features, width)
        # Dropout acts in training only.
        self.conclude = nn.Sequential(
            nn.Dropout(0.2), nn.Linear(2 * width, width), nn.LeakyReLU(), nn.Dropout(0.2), nn.Linear(width, classes)
        )
        columns = {"image_features": image_features, "audio_features": audio_features, "probabilities": classes}
        self.contract = narrowed(find_network("association", "001"), columns)

    def logits(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """float32 [N, classes]. `inputs` holds at least one feature vector or mask, which tells the number of rows."""
        if not inputs:
            raise InvalidInput("neither 'image_features' nor 'audio_features' is present; send at least one")
        rows = len(next(iter(inputs.values())))
        result: Tensor = self.conclude(torch.cat([self.image(inputs, rows), self.audio(inputs, rows)], dim=1))
        return result

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"probabilities": torch.softmax(self.logits(inputs), dim=1)}

    def learning(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        logits = self.logits(inputs)
        return {"probabilities": torch.softmax(logits, dim=1), "probabilities.logits": logits}


def load(code: str, weights: Path | bytes | None, arguments: Mapping[str, Any]) -> Network:
    return load_torch_network("association", code, partial(LateFusion), weights, arguments)
