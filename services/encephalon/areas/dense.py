"""A network of plain layers that learns: for tests and for measuring, where weights should come from a seed alone."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from encephalon.areas.arguments import construct, whole
from encephalon.areas.contracts import narrowed
from encephalon.areas.network import Network
from encephalon.areas.torch_network import AreaModule, TorchNetwork, load_torch_network
from encephalon.core.errors import InvalidInput
from encephalon.library.areas import find_network

__all__ = ["CODE", "Dense", "load"]

CODE = "005"
MOST, MOST_DEPTH, MOST_SEED = 1 << 16, 1 << 8, (1 << 63) - 1
MOST_PARAMETERS = 1 << 30


class Dense(AreaModule):
    """`x` [N, inputs] through `depth` layers of `width` with ReLU between them, to `y` [N, outputs] and its softmax.

    The same seed gives the same weights everywhere: He et al. 2015, biases 0.
    """

    def __init__(self, inputs: int = 8, outputs: int = 4, width: int = 32, depth: int = 1, seed: int = 0) -> None:
        super().__init__()
        whole(MOST, inputs=inputs, outputs=outputs, width=width)
        _counted(MOST_DEPTH, depth=depth)
        _counted(MOST_SEED, seed=seed)
        sizes = [inputs, *[width] * depth, outputs]
        count = sum(before * after for before, after in pairwise(sizes))
        if count > MOST_PARAMETERS:
            raise ValueError(f"that are {count} parameters, at most {MOST_PARAMETERS} are allowed")
        generator = torch.Generator().manual_seed(seed)
        layers = [_linear(*pair, generator) for pair in pairwise(sizes)]
        hidden: list[nn.Module] = [part for layer in layers[:-1] for part in (layer, nn.ReLU())]
        self.layers = nn.Sequential(*hidden, layers[-1])
        self.contract = narrowed(
            find_network("diagnostics", CODE), {"x": inputs, "y": outputs, "probabilities": outputs}
        )
        self._inputs = inputs

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        y = self._y(inputs["x"])
        return {"y": y, "probabilities": torch.softmax(y, dim=1)}

    def learning(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        y = self._y(inputs["x"])
        return {"y": y, "probabilities": torch.softmax(y, dim=1), "probabilities.logits": y}

    def _y(self, x: Tensor) -> Tensor:
        if x.dim() != 2 or x.shape[1] != self._inputs:
            raise InvalidInput(f"tensor 'x' came with shape {list(x.shape)}, expected [-1, {self._inputs}]", tensor="x")
        y: Tensor = self.layers(x)
        return y


def _counted(most: int, **arguments: Any) -> None:
    for name, value in arguments.items():
        if not isinstance(value, int) or not 0 <= value <= most:
            raise ValueError(f"{name} is {value!r}, expected a whole number from 0 to {most}")


def _linear(before: int, after: int, generator: torch.Generator) -> nn.Linear:
    layer = nn.Linear(before, after, device="meta").to_empty(device="cpu")
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def load(code: str, weights: Path | bytes | None, arguments: Mapping[str, Any]) -> Network:
    """Without weights, those of its seed."""
    if weights is None:
        return TorchNetwork(construct(f"diagnostics/{code}", Dense, arguments))
    return load_torch_network("diagnostics", code, Dense, weights, arguments)
