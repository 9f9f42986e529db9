"""What vision and hearing share: something turned into a picture, one of the paper's networks, and a linear head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from encephalon.areas.arguments import whole
from encephalon.areas.contracts import narrowed
from encephalon.areas.convolutional import ARCHITECTURES
from encephalon.areas.torch_network import AreaModule
from encephalon.library.areas import find_network

__all__ = ["Perception", "Sense"]

MOST_CLASSES = 1 << 16


class Perception(NamedTuple):
    features: Tensor
    """[N, features]"""
    logits: Tensor
    """[N, classes]"""


class Sense(AreaModule):
    """Sees pictures float32 [N, side, side] of roughly mean 0 and deviation 1, which `prepare` makes from what
    arrives."""

    area: ClassVar[str]
    input: ClassVar[str]

    def __init__(self, code: str, classes: int = 10) -> None:
        super().__init__()
        whole(MOST_CLASSES, classes=classes)
        architecture = ARCHITECTURES[code]
        self.side = architecture.side
        self.features = architecture.features
        # On a CPU this memory order trains twice (LeNet5) to five times (SparseNet) as fast.
        self.body = architecture.body().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.head = nn.Linear(architecture.features, classes)
        columns = {"features": architecture.features, "probabilities": classes}
        self.contract = narrowed(find_network(self.area, code), columns)

    def prepare(self, raw: Tensor) -> Tensor:
        """Nothing in it is learned."""
        raise NotImplementedError

    def see(self, pictures: Tensor) -> Perception:
        features = self.body(pictures.unsqueeze(1))
        return Perception(features, self.head(features))

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        features, logits = self.see(self.prepare(inputs[self.input]))
        return {"features": features, "probabilities": torch.softmax(logits, dim=1)}

    def learning(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        features, logits = self.see(self.prepare(inputs[self.input]))
        probabilities = torch.softmax(logits, dim=1)
        return {"features": features, "probabilities": probabilities, "probabilities.logits": logits}
