"""The functional areas: the built-in ones as data, and those that installed packages bring. The networks themselves
live in `encephalon.areas`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from types import MappingProxyType

from encephalon.core.contract import Contract, TensorSpec
from encephalon.core.errors import FailedPrecondition, NotFound
from encephalon.library.area import ONNX, ONNX_LOAD, Area
from encephalon.library.extensions import Extended, extended

__all__ = ["AREAS", "BUILT_IN", "Area", "find_area", "find_network"]


def _spec(name: str, description: str, *, optional: bool = False) -> TensorSpec:
    return TensorSpec(name, "FP32", (-1, -1), optional, description)


PAPER_NETWORKS = MappingProxyType({"001": "LeNet3", "002": "LeNet5", "003": "MediumNet", "004": "SparseNet"})
"""Table 6 of Lv et al. 2022; the same four for both senses."""

FEATURES = _spec("features", "the last convolutional block, flattened")
PROBABILITIES = _spec("probabilities", "one number from 0 to 1 per class; each row sums to 1")

VISION = Area(
    "vision",
    "Sees what a grey picture shows.",
    Contract(
        (
            TensorSpec(
                "image",
                "UINT8",
                (-1, -1, -1),
                description="grey pictures [batch, height, width], 0 black to 255 white; any size",
            ),
        ),
        (FEATURES, PROBABILITIES),
    ),
    PAPER_NETWORKS,
    "encephalon.areas.vision:load",
)

HEARING = Area(
    "hearing",
    "Hears what is said.",
    Contract(
        (TensorSpec("audio", "INT16", (-1, -1), description="mono PCM [batch, samples] at 8 kHz; any length"),),
        (FEATURES, PROBABILITIES),
    ),
    PAPER_NETWORKS,
    "encephalon.areas.hearing:load",
)

ASSOCIATION = Area(
    "association",
    "Concludes from what was seen and heard, or from one of them.",
    Contract(
        (
            _spec("image_features", "features of the network that saw", optional=True),
            _spec("audio_features", "features of the network that heard", optional=True),
        ),
        (PROBABILITIES,),
    ),
    {"001": "Late fusion"},
    "encephalon.areas.association:load",
)

_X = _spec("x", "any numbers")
_Y = _spec("y", "the answer, as wide as the input")
_ONE = Contract((_X,), (_Y,))
_TWO = Contract((_spec("a", "any numbers", optional=True), _spec("b", "any numbers", optional=True)), (_Y,))

_DENSE = Contract(
    (_spec("x", "any numbers, as wide as the network is told"),),
    (_spec("y", "one number per class, before softmax"), PROBABILITIES),
)

DIAGNOSTICS = Area(
    "diagnostics",
    "Networks for measuring and for tests.",
    None,
    MappingProxyType({"001": "Identity", "002": "Join", "003": "Delay", "004": "Faulty", "005": "Dense"}),
    "encephalon.areas.diagnostics:load",
    MappingProxyType({"001": _ONE, "002": _TWO, "003": _ONE, "004": _ONE, "005": _DENSE}),
    loads=MappingProxyType({"005": "encephalon.areas.dense:load"}),
)

GRAPH = Area(
    "graph",
    "Networks that come as a graph in a file, each with a contract of its own.",
    None,
    MappingProxyType({ONNX: "ONNX graph", "901": "Darknet graph"}),
    "encephalon.areas.graph.darknet:load",
    loads=MappingProxyType({ONNX: ONNX_LOAD}),
)

BUILT_IN = (VISION, HEARING, ASSOCIATION, DIAGNOSTICS, GRAPH)


class _Areas(Mapping[str, Area]):
    """Looks for installed packages on first use: that takes some ten milliseconds, which not every command needs.

    An area whose package is broken is not listed, and raises `FailedPrecondition` when it is asked for by name.
    """

    @cached_property
    def _extended(self) -> Extended:
        return extended(BUILT_IN)

    def __getitem__(self, name: str) -> Area:
        found = self._extended
        if name in found.broken:
            raise FailedPrecondition(found.broken[name], area=name)
        return found.areas[name]

    def __contains__(self, name: object) -> bool:
        return name in self._extended.areas

    def __iter__(self) -> Iterator[str]:
        return iter(self._extended.areas)

    def __len__(self) -> int:
        return len(self._extended.areas)


AREAS: Mapping[str, Area] = _Areas()
"""All areas by name: the built-in ones first."""


def find_area(name: str) -> Area:
    """Raises `NotFound`, naming the areas that there are, and `FailedPrecondition` when its package is broken."""
    try:
        return AREAS[name]
    except KeyError:
        raise NotFound(f"there is no area '{name}'; there are {', '.join(AREAS)}", area=name) from None


def find_network(area: str, code: str) -> Contract:
    """The contract of `area/code`. Raises `NotFound` for an unknown area or code, and `FailedPrecondition` for a
    network whose contract only its file tells and for a broken package."""
    return find_area(area).contract_of(code)
