"""Runs a torch module as a `Network`: numpy in, numpy out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from encephalon.areas import weights as weight_files
from encephalon.areas.arguments import construct
from encephalon.areas.network import Arrays
from encephalon.core.contract import Contract
from encephalon.core.errors import InvalidInput
from encephalon.library.builtins import packaged_weights

__all__ = ["AreaModule", "TorchNetwork", "load_torch_network"]


class AreaModule(nn.Module):
    """A module that fulfils an area's contract: named tensors in, named tensors out, the batch first."""

    contract: Contract

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        raise NotImplementedError

    def learning(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What `forward` gives and, for each output that classes are learned from, `NAME.logits`: the numbers before
        the softmax, from which a loss is exact where a probability has been rounded to 0."""
        return self(inputs)  # type: ignore[no-any-return]


class TorchNetwork:
    """Any batch size; float32; eval mode; no gradients. Meant for one worker thread at a time."""

    def __init__(self, module: AreaModule, version: str = "") -> None:
        self.module = module.eval().requires_grad_(False)
        self.version = version
        """What the weight file says of itself."""

    @property
    def contract(self) -> Contract:
        return self.module.contract

    def __call__(self, inputs: Arrays) -> Arrays:
        # Copies: what came from the wire is read-only, which torch has no notion of.
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in inputs.items()}
        with torch.inference_mode():
            return {name: tensor.numpy() for name, tensor in self.module(tensors).items()}


def load_torch_network(
    area: str,
    code: str,
    build: Callable[..., AreaModule],
    weights: Path | bytes | None,
    arguments: Mapping[str, Any],
) -> TorchNetwork:
    """Builds the module with the weights' own arguments, overridden by `arguments`, and fills it. Raises as
    `load_network` does."""
    name = f"{area}/{code}"
    read = weight_files.read(packaged_weights(area, code) if weights is None else weights)
    if read.architecture not in ("", name):
        raise InvalidInput(
            f"the weights are those of {read.architecture}, expected {name}",
            network=name,
            architecture=read.architecture,
        )
    module = construct(name, build, {**read.arguments, **arguments})
    weight_files.fill(module, read.tensors, name)
    return TorchNetwork(module, read.version)
