"""Darknet's networks in torch: built from the cfg's text, which is their only argument."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from encephalon.areas.graph.plan import Layer, Plan, plan_of
from encephalon.areas.network import Network
from encephalon.areas.torch_network import AreaModule, load_torch_network
from encephalon.core.contract import Contract, TensorSpec
from encephalon.core.errors import InvalidInput

__all__ = ["CODE", "Darknet", "load"]

CODE = "901"

EPSILON = 1e-5
"""What is added to a variance: as Darknet's GPU code does, with which networks are trained. Its CPU code adds 1e-6 to
the root instead, OpenCV 1e-6 to the variance."""


class DarknetLayer(nn.Module):
    """The tensors of one layer, and what it computes."""

    def __init__(self, layer: Layer, epsilon: float) -> None:
        super().__init__()
        self.layer = layer
        self.epsilon = epsilon
        for name, shape in layer.tensors.items():
            if name in ("mean", "variance"):
                self.register_buffer(name, torch.zeros(shape))
            else:
                self.register_parameter(name, nn.Parameter(torch.zeros(shape)))
        self.activate = ACTIVATE[layer.activation]

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        return self.activate(COMPUTE[self.layer.kind](self, *inputs))

    def normalised(self, raw: Tensor) -> Tensor:
        """With the bias, or with the batch norm, whose shift the bias then is."""
        if "variance" in self.layer.tensors:
            mean, variance, scale = self.mean, self.variance, self.scale
            return nnf.batch_norm(raw, mean, variance, scale, self.bias, False, 0.0, self.epsilon)  # type: ignore[arg-type]
        bias: Tensor = self.bias  # type: ignore[assignment]
        return raw + bias.view(1, -1, *(1,) * (raw.dim() - 2))


class Darknet(AreaModule):
    """float32 pictures [N, channels, height, width] in 0..1 to the raw maps of its heads, or its last layer's output.

    `epsilon` is what batch norms add to a variance.
    """

    def __init__(self, cfg: str, epsilon: float = EPSILON) -> None:
        super().__init__()
        plan = plan_of(cfg)
        self.plan = plan
        with torch.device("meta"):  # the weights bring the memory along
            self.layers = nn.ModuleList(DarknetLayer(layer, epsilon) for layer in plan.layers)
        self.contract = contract_of(plan)
        self._last_use = last_uses(plan)

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        kept = {-1: inputs["image"]}
        for index, layer in enumerate(self.layers):
            kept[index] = layer([kept[source] for source in self.plan.layers[index].sources])
            for done in self._last_use.get(index, ()):
                del kept[done]
        return {name: kept[index] for name, index in self.plan.outputs.items()}


def contract_of(plan: Plan) -> Contract:
    image = TensorSpec(
        "image", "FP32", (-1, *plan.input), description="pictures [batch, channels, height, width], 0..1"
    )
    return Contract(
        (image,), tuple(TensorSpec(name, "FP32", (-1, *plan.shape(index))) for name, index in plan.outputs.items())
    )


def last_uses(plan: Plan) -> dict[int, list[int]]:
    """After which layer which others are not needed any more."""
    last = {source: index for index, layer in enumerate(plan.layers) for source in layer.sources}
    after: dict[int, list[int]] = {}
    for source, index in last.items():
        if source not in plan.outputs.values():
            after.setdefault(index, []).append(source)
    return after


def convolve(layer: DarknetLayer, x: Tensor) -> Tensor:
    settings = layer.layer.settings
    stride = (settings["stride_y"], settings["stride_x"])
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return layer.normalised(
        nnf.conv2d(x, weight, None, stride, settings["padding"], settings["dilation"], settings["groups"])
    )


def connect(layer: DarknetLayer, x: Tensor) -> Tensor:
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return layer.normalised(nnf.linear(x.flatten(1), weight))[:, :, None, None]


def pool(layer: DarknetLayer, x: Tensor) -> Tensor:
    """Darknet pads half of it, rounded down, before the picture, and the rest behind."""
    settings = layer.layer.settings
    size, padding = settings["size"], settings["padding"]
    before, after = padding // 2, padding - padding // 2
    padded = nnf.pad(x, (before, after, before, after), value=-torch.inf) if padding else x
    return nnf.max_pool2d(padded, size, (settings["stride_y"], settings["stride_x"]))


def route(layer: DarknetLayer, *xs: Tensor) -> Tensor:
    groups, group = layer.layer.settings["groups"], layer.layer.settings["group"]
    return torch.cat([x.chunk(groups, dim=1)[group] for x in xs], dim=1)


def add(layer: DarknetLayer, *xs: Tensor) -> Tensor:
    total = xs[0]
    for x in xs[1:]:
        total = total + x
    return total


def reorganise(layer: DarknetLayer, x: Tensor) -> Tensor:
    """Darknet's `reorg_cpu`, which reads its input as if it were [channels/s/s, height*s, width*s]."""
    stride = layer.layer.settings["stride"]
    rows, channels, height, width = x.shape
    blocks = x.reshape(rows, channels // stride**2, height, stride, width, stride)
    return blocks.permute(0, 3, 5, 1, 2, 4).reshape(rows, -1, height // stride, width // stride)


def upsample(layer: DarknetLayer, x: Tensor) -> Tensor:
    return nnf.interpolate(x, scale_factor=float(layer.layer.settings["stride"]), mode="nearest")


def same(layer: DarknetLayer, x: Tensor) -> Tensor:
    return x


COMPUTE: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {
        "convolutional": convolve,
        "connected": connect,
        "maxpool": pool,
        "avgpool": lambda layer, x: x.mean((2, 3), keepdim=True),
        "route": route,
        "shortcut": add,
        "sam": lambda layer, x, other: x * other,
        "scale_channels": lambda layer, x, other: x * other,
        "reorg": reorganise,
        "upsample": upsample,
        "softmax": lambda layer, x: torch.softmax(x.flatten(1), dim=1).reshape(x.shape),
        **dict.fromkeys(("yolo", "region", "dropout", "cost"), same),
    }
)

ACTIVATE: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "linear": lambda x: x,
        "leaky": partial(nnf.leaky_relu, negative_slope=0.1),
        "relu": torch.relu,
        "relu6": nnf.relu6,
        "mish": nnf.mish,
        "swish": nnf.silu,
        "logistic": torch.sigmoid,
        "tanh": torch.tanh,
    }
)


def load(code: str, weights: Path | bytes | None, arguments: Mapping[str, Any]) -> Network:
    """A safetensors file as the importer writes it, with the cfg's text among its arguments."""
    if weights is None:
        raise InvalidInput(f"network graph/{code} has no weights of its own; name the file that the importer wrote")
    return load_torch_network("graph", code, Darknet, weights, arguments)
