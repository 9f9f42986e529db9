"""From a cfg to layers with their shapes and tensors: all that can be wrong is found here, before memory is taken.

Follows Darknet's own rules (github AlexeyAB/darknet, `src/parser.c` and the `make_*_layer` functions).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from encephalon.areas.graph.cfg import Section, read_cfg
from encephalon.core.errors import InvalidInput

__all__ = ["ACTIVATIONS", "Layer", "Plan", "plan_of"]

ACTIVATIONS = ("linear", "leaky", "relu", "relu6", "mish", "swish", "logistic", "tanh")

Shape = tuple[int, int, int]
"""Channels, height, width."""

MAX_SIDE = 8_192
# Of one picture: the largest layer of YOLOv4-p6 at 1,280 pixels has 52 million numbers.
MAX_NUMBERS = 1 << 27
# All layers of one picture together, and all tensors of a network (YOLOv1, the largest, has 272 million).
MAX_TOTAL = 1 << 31
MAX_PARAMETERS = 1 << 29

IGNORED = ("dropout", "cost")
"""They act in training only."""
HEADS = ("yolo", "region")
CHANGING = (
    "antialiasing", "assisted_excitation", "bin_output", "binary", "coordconv", "deform", "dontload", "dontloadscales",
    "flipped", "rotate", "share_index", "stretch", "stretch_sway", "sway", "weights_type", "xnor",
)  # fmt: skip
"""Options that change what a layer computes, and that no layer here follows."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One section. `sources` are the layers that it reads, -1 for the picture; `tensors` stand in the order in which a
    weights file has them."""

    kind: str
    line: int
    shape: Shape
    sources: tuple[int, ...]
    settings: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    activation: str = "linear"
    tensors: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Plan:
    input: Shape
    layers: tuple[Layer, ...]
    outputs: Mapping[str, int]
    """Name to the layer that gives it."""

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for layer in self.layers for shape in layer.tensors.values())

    def shape(self, index: int) -> Shape:
        return self.input if index < 0 else self.layers[index].shape


def plan_of(cfg: object) -> Plan:
    """InvalidInput, with the cfg's line, for a layer that is unknown, does not fit, or is absurdly large."""
    if not isinstance(cfg, str):
        raise InvalidInput(f"the cfg is {type(cfg).__name__}, expected the text of a Darknet cfg file")
    sections = read_cfg(cfg)
    if not sections or sections[0].kind not in ("net", "network"):
        raise InvalidInput("the cfg does not start with a section [net]; is it a Darknet cfg file?")
    net = sections[0]
    shape = (
        net.number("channels", least=1, most=4_096),
        net.number("height", least=1, most=MAX_SIDE),
        net.number("width", least=1, most=MAX_SIDE),
    )
    if len(sections) == 1:
        raise net.error("no layer follows")
    layers: list[Layer] = []
    total = parameters = 0
    for section in sections[1:]:
        layer = layer_of(section, shape, layers)
        layers.append(layer)
        total += math.prod(layer.shape)
        parameters += sum(map(math.prod, layer.tensors.values()))
        if math.prod(layer.shape) > MAX_NUMBERS or total > MAX_TOTAL or parameters > MAX_PARAMETERS:
            raise section.error(
                f"with it the network has an output of {list(layer.shape)} and {parameters} parameters, more than any "
                "real one; check sizes and filters"
            )
    heads = [index for index, layer in enumerate(layers) if layer.kind in HEADS]
    outputs = {f"head_{number}": index for number, index in enumerate(heads)} or {"output": len(layers) - 1}
    return Plan(shape, tuple(layers), MappingProxyType(outputs))


def layer_of(section: Section, first: Shape, layers: list[Layer]) -> Layer:
    for option in CHANGING:
        if section.options.get(option, "0") not in ("0", "none"):
            raise section.error(f"'{option}={section.options[option][:20]}' is not supported")
    before = layers[-1].shape if layers else first
    if section.kind in IGNORED or section.kind in HEADS:
        return Layer(section.kind, section.line, before, (len(layers) - 1,))
    build = BUILDERS.get(section.kind)
    if build is None:
        known = ", ".join((*BUILDERS, *HEADS, *IGNORED))
        raise section.error(f"there is no such layer; known are {known}")
    layer = build(section, before, layers)
    if min(layer.shape) < 1:
        raise section.error(f"nothing is left of its input {list(before)}; check size and stride")
    return layer


def convolutional(section: Section, before: Shape, layers: list[Layer]) -> Layer:
    filters, size = section.number("filters", 1, 1), section.number("size", 1, 1, 1_000)
    groups, dilation = section.number("groups", 1, 1), section.number("dilation", 1, 1, 1_000)
    stride = section.number("stride", 1, 1, 1_000)
    down, across = section.number("stride_y", stride, 1, 1_000), section.number("stride_x", stride, 1, 1_000)
    padding = size // 2 if section.number("pad", 0) else section.number("padding", 0, 0, 1_000)
    channels, height, width = before
    if channels % groups or filters % groups:
        raise section.error(f"{channels} channels and {filters} filters cannot be divided into {groups} groups")
    reach = dilation * (size - 1) + 1
    padding *= dilation
    shape = (
        filters, (height + 2 * padding - reach) // down + 1, (width + 2 * padding - reach) // across + 1
    )  # fmt: skip
    return Layer(
        "convolutional",
        section.line,
        shape,
        (len(layers) - 1,),
        {"padding": padding, "stride_y": down, "stride_x": across, "dilation": dilation, "groups": groups},
        activation(section, "logistic"),
        tensors(section, filters, (filters, channels // groups, size, size)),
    )


def connected(section: Section, before: Shape, layers: list[Layer]) -> Layer:
    outputs = section.number("output", 1, 1)
    held = dict(tensors(section, outputs, (outputs, math.prod(before))))
    order = ["bias", "weight", *(name for name in held if name not in ("bias", "weight"))]
    return Layer(
        "connected",
        section.line,
        (outputs, 1, 1),
        (len(layers) - 1,),
        activation=activation(section, "logistic"),
        tensors={name: held[name] for name in order},
    )


def tensors(section: Section, outputs: int, weight: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
    normal = ("scale", "mean", "variance") if section.number("batch_normalize", 0) else ()
    return MappingProxyType({"bias": (outputs,), **dict.fromkeys(normal, (outputs,)), "weight": weight})


def maxpool(section: Section, before: Shape, layers: list[Layer]) -> Layer:
    if section.number("maxpool_depth", 0) or section.number("out_channels", 1, 1) > 1:
        raise section.error("pooling over channels is not supported")
    stride = section.number("stride", 1, 1, 1_000)
    down, across = section.number("stride_y", stride, 1, 1_000), section.number("stride_x", stride, 1, 1_000)
    size = section.number("size", stride, 1, 1_000)
    padding = section.number("padding", size - 1, 0, 1_000)
    channels, height, width = before
    shape = (channels, (height + padding - size) // down + 1, (width + padding - size) // across + 1)
    settings = {"size": size, "padding": padding, "stride_y": down, "stride_x": across}
    return Layer("maxpool", section.line, shape, (len(layers) - 1,), settings)


def avgpool(section: Section, before: Shape, layers: list[Layer]) -> Layer:
    return Layer("avgpool", section.line, (before[0], 1, 1), (len(layers) - 1,))


def upsample(section: Section, before: Shape, layers: list[Layer]) -> Layer:
    stride = section.number("stride", 2, 1, 64)
    if section.word("scale", "1") not in ("1", "1.0", "1."):
        raise section.error("a 'scale' other than 1 is not supported")
    shape = (before[0], before[1] * stride, before[2] * stride)
    return Layer("upsample", section.line, shape, (len(layers) - 1,), {"stride": stride})


def route(section: Section, before: Shape, layers: list[Layer]) -> Layer:
    sources = tuple(earlier(section, "layers", number, layers) for number in section.numbers("layers"))
    groups = section.number("groups", 1, 1)
    group = section.number("group_id", 0, 0)
    shapes = [layers[source].shape for source in sources]
    if len({shape[1:] for shape in shapes}) > 1:
        raise section.error(f"its layers have the sizes {[list(shape) for shape in shapes]}; they must be equal")
    if any(shape[0] % groups for shape in shapes) or group >= groups:
        raise section.error(f"its layers cannot be divided into {groups} groups of which {group} is one")
    shape = (sum(shape[0] // groups for shape in shapes), *shapes[0][1:])
    return Layer("route", section.line, shape, sources, {"groups": groups, "group": group})


def shortcut(section: Section, before: Shape, layers: list[Layer]) -> Layer:
    sources = tuple(earlier(section, "from", number, layers) for number in section.numbers("from"))
    for source in sources:
        if layers[source].shape != before:
            raise section.error(f"adds {list(layers[source].shape)} to {list(before)}; they must be equal")
    return Layer("shortcut", section.line, before, (len(layers) - 1, *sources), activation=activation(section))


def sam(section: Section, before: Shape, layers: list[Layer]) -> Layer:
    source = earlier(section, "from", section.numbers("from")[0], layers)
    if layers[source].shape != before:
        raise section.error(f"multiplies {list(before)} with {list(layers[source].shape)}; they must be equal")
    return Layer("sam", section.line, before, (len(layers) - 1, source), activation=activation(section))


def scale_channels(section: Section, before: Shape, layers: list[Layer]) -> Layer:
    source = earlier(section, "from", section.numbers("from")[0], layers)
    shape = layers[source].shape
    if before != (shape[0], 1, 1) or section.number("scale_wh", 0):
        raise section.error(f"scales {list(shape)} with {list(before)}, expected {[shape[0], 1, 1]}")
    return Layer("scale_channels", section.line, shape, (len(layers) - 1, source), activation=activation(section))


def reorg(section: Section, before: Shape, layers: list[Layer]) -> Layer:
    stride = section.number("stride", 1, 1, 64)
    if section.number("reverse", 0) or section.number("flatten", 0) or section.number("extra", 0):
        raise section.error("'reverse', 'flatten' and 'extra' are not supported")
    channels, height, width = before
    if channels % stride**2 or height % stride or width % stride:
        raise section.error(f"its input {list(before)} cannot be divided by the stride {stride}")
    shape = (channels * stride**2, height // stride, width // stride)
    return Layer("reorg", section.line, shape, (len(layers) - 1,), {"stride": stride})


def softmax(section: Section, before: Shape, layers: list[Layer]) -> Layer:
    if section.number("groups", 1, 1) != 1 or section.word("temperature", "1") not in ("1", "1.0"):
        raise section.error("'groups' and 'temperature' other than 1 are not supported")
    return Layer("softmax", section.line, before, (len(layers) - 1,))


def earlier(section: Section, key: str, number: int, layers: list[Layer]) -> int:
    """The index of a layer, which is counted from the first, or backwards when negative."""
    index = number if number >= 0 else len(layers) + number
    if not 0 <= index < len(layers):
        raise section.error(f"'{key}' names layer {number}, but there are {len(layers)} before it")
    return index


def activation(section: Section, default: str = "linear") -> str:
    name = section.word("activation", default).lower()
    if name not in ACTIVATIONS:
        raise section.error(f"activation '{name[:40]}' is not supported; known are {', '.join(ACTIVATIONS)}")
    return name


BUILDERS: Mapping[str, Callable[[Section, Shape, list[Layer]], Layer]] = MappingProxyType(
    {
        "convolutional": convolutional,
        "conv": convolutional,
        "connected": connected,
        "maxpool": maxpool,
        "max": maxpool,
        "avgpool": avgpool,
        "avg": avgpool,
        "upsample": upsample,
        "route": route,
        "shortcut": shortcut,
        "sam": sam,
        "scale_channels": scale_channels,
        "reorg": reorg,
        "softmax": softmax,
        "soft": softmax,
    }
)
