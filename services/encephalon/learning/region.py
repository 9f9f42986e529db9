"""One region as a torch module that learns, or that stays as it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.areas import Network, load_network
from encephalon.areas.torch_network import AreaModule, TorchNetwork
from encephalon.core.contract import Contract
from encephalon.core.errors import InvalidInput
from encephalon.learning.beginning import begin_again
from encephalon.library.brains import Region

__all__ = ["Learned", "LearningRegion", "learning_region"]


class Learned(NamedTuple):
    """A tensor that travels: its name (REGION/NAME), the live tensor, and the module that uses it."""

    name: str
    tensor: Tensor
    kind: pb.Tensor.Kind.ValueType
    owner: nn.Module

    def message(self) -> pb.Tensor:
        return pb.Tensor(name=self.name, shape=self.tensor.shape, kind=self.kind)


class LearningRegion(nn.Module):
    """At first it does not learn: it is in eval mode and has no gradients of its own. Gradients pass through it to what
    comes before, unless its network is no torch module."""

    def __init__(self, name: str, network: Network, *, bfloat16: bool = False) -> None:
        """bfloat16: compute under autocast; outputs are float32 all the same."""
        super().__init__()
        self.name = name
        self.trainable = False
        self.autocast = bfloat16
        self.module: AreaModule = network.module if isinstance(network, TorchNetwork) else _Called(network)
        self.module.requires_grad_(False)
        self.eval()

    def learn(self, *, from_scratch: bool = False, seed: int = 0) -> None:
        """From now on it learns. from_scratch: from weights that depend on `seed` and its name. InvalidInput when it
        cannot."""
        if reason := self.why_fixed():
            raise InvalidInput(f"region '{self.name}' cannot learn: {reason}; freeze it", region=self.name)
        if from_scratch:
            begin_again(self.module, self.name, seed)
        self.trainable = True
        self.module.requires_grad_(True)
        self.train()

    @property
    def contract(self) -> Contract:
        return self.module.contract

    @property
    def passes(self) -> bool:
        """Whether gradients pass through it."""
        return not isinstance(self.module, _Called)

    def why_fixed(self) -> str:
        """Why it cannot learn; empty when it can."""
        if not self.passes:
            return "its network is no torch module"
        if not any(True for _ in self.module.parameters()):
            return "its network has no parameters"
        wrong = next((name for name, each in self.module.named_parameters() if each.dtype != torch.float32), None)
        return f"its parameter '{wrong}' is not float32" if wrong else ""

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The network's outputs, and `NAME.logits` where it has them. `NAME.present` of optional inputs as
        `areas.Network` has them."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            outputs = self.module.learning(inputs)
        # What leaves a region is what its contract says, in one process or in several.
        return {name: each.float() if each.dtype == torch.bfloat16 else each for name, each in outputs.items()}

    def train(self, mode: bool = True) -> LearningRegion:
        """A region that does not learn stays in eval mode."""
        return super().train(mode and self.trainable)

    def learned(self) -> Iterator[Learned]:
        """What the parameter server keeps, in the order of use; nothing of a region that does not learn."""
        seen: set[int] = set()
        for prefix, owner in self.module.named_modules() if self.trainable else ():
            for name, tensor, kind in _own(owner):
                if id(tensor) not in seen:
                    seen.add(id(tensor))
                    yield Learned(
                        f"{self.name}/{prefix}.{name}" if prefix else f"{self.name}/{name}", tensor, kind, owner
                    )

    def tensors(self) -> list[pb.Tensor]:
        return [each.message() for each in self.learned()]

    def state(self) -> dict[str, Tensor]:
        """The live tensors by the names of `tensors`."""
        return {each.name: each.tensor for each in self.learned()}

    def fingerprint(self) -> str:
        """Of what stays as it is: SHA-256 of every tensor of a region that does not learn."""
        digest = hashlib.sha256()
        for name, tensor in self.module.state_dict().items() if not self.trainable else ():
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


class _Called(AreaModule):
    """A network that only takes arrays and gives them."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.contract = network.contract
        self._network = network

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        arrays = {name: tensor.detach().numpy() for name, tensor in inputs.items()}
        # Copies: a network may give a view of what is read-only.
        return {name: torch.from_numpy(np.array(each)) for name, each in self._network(arrays).items()}


def learning_region(
    region: Region,
    weights: Path | bytes | None,
    *,
    trainable: bool,
    from_scratch: bool = False,
    seed: int = 0,
    bfloat16: bool = False,
) -> LearningRegion:
    """Loads a region's network. from_scratch: one that learns begins with weights that depend on `seed` and its name.

    Raises as `load_network` does, and InvalidInput, naming the region, when it runs elsewhere, or is to learn and
    cannot.
    """
    if not region.network:
        raise InvalidInput(
            f"region '{region.name}' runs at {region.address}, where nothing can be learned through it; give it a "
            "network to train this brain",
            region=region.name,
        )
    area, _, code = region.network.partition("/")
    found = LearningRegion(region.name, load_network(area, code, weights, region.arguments), bfloat16=bfloat16)
    if trainable:
        found.learn(from_scratch=from_scratch, seed=seed)
    return found


def _own(owner: nn.Module) -> Iterator[tuple[str, Tensor, pb.Tensor.Kind.ValueType]]:
    for name, parameter in owner.named_parameters(recurse=False):
        yield name, parameter, pb.Tensor.KIND_PARAMETER
    for name, buffer in owner.named_buffers(recurse=False):
        if buffer.is_floating_point() and name not in owner._non_persistent_buffers_set:
            yield name, buffer, pb.Tensor.KIND_BUFFER
