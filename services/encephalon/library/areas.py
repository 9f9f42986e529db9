"""The functional areas as data: what each takes and gives, and which networks fulfil it. The networks themselves live
in `encephalon.areas`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from encephalon.core.contract import Contract, TensorSpec
from encephalon.core.errors import NotFound

__all__ = ["AREAS", "Area", "find_area", "find_network"]


@dataclass(frozen=True, slots=True)
class Area:
    """A functional area of the brain: a contract, and the networks that fulfil it."""

    name: str
    description: str
    contract: Contract | None
    """What every network of the area takes and gives (a network may narrow -1 to a size); None where each has its
    own."""
    networks: Mapping[str, str]
    """Three-digit code to title."""
    contracts: Mapping[str, Contract]
    """Three-digit code to the contract of that network, before its arguments narrow it."""

    def contract_of(self, code: str) -> Contract:
        """Raises `NotFound`, naming the codes that there are."""
        if code not in self.contracts:
            there = ", ".join(f"{known} {title}" for known, title in self.networks.items())
            raise NotFound(f"area '{self.name}' has no network '{code}'; it has {there}", area=self.name, network=code)
        return self.contracts[code]


def _area(name: str, description: str, contract: Contract, networks: Mapping[str, str]) -> Area:
    contracts = MappingProxyType(dict.fromkeys(networks, contract))
    return Area(name, description, contract, MappingProxyType(dict(networks)), contracts)


def _spec(name: str, description: str, *, optional: bool = False) -> TensorSpec:
    return TensorSpec(name, "FP32", (-1, -1), optional, description)


PAPER_NETWORKS = {"001": "LeNet3", "002": "LeNet5", "003": "MediumNet", "004": "SparseNet"}
"""Table 6 of Lv et al. 2022; the same four for both senses."""

FEATURES = _spec("features", "the last convolutional block, flattened")
PROBABILITIES = _spec("probabilities", "one number from 0 to 1 per class; each row sums to 1")

VISION = _area(
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
)

HEARING = _area(
    "hearing",
    "Hears what is said.",
    Contract(
        (TensorSpec("audio", "INT16", (-1, -1), description="mono PCM [batch, samples] at 8 kHz; any length"),),
        (FEATURES, PROBABILITIES),
    ),
    PAPER_NETWORKS,
)

ASSOCIATION = _area(
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
)

_X = _spec("x", "any numbers")
_Y = _spec("y", "the answer, as wide as the input")
_ONE = Contract((_X,), (_Y,))
_TWO = Contract((_spec("a", "any numbers", optional=True), _spec("b", "any numbers", optional=True)), (_Y,))

DIAGNOSTICS = Area(
    "diagnostics",
    "Networks that learn nothing: for measuring and for tests.",
    None,
    MappingProxyType({"001": "Identity", "002": "Join", "003": "Delay", "004": "Faulty"}),
    MappingProxyType({"001": _ONE, "002": _TWO, "003": _ONE, "004": _ONE}),
)

AREAS: Mapping[str, Area] = MappingProxyType({area.name: area for area in (VISION, HEARING, ASSOCIATION, DIAGNOSTICS)})


def find_area(name: str) -> Area:
    """Raises `NotFound`, naming the areas that there are."""
    if name not in AREAS:
        raise NotFound(f"there is no area '{name}'; there are {', '.join(AREAS)}", area=name)
    return AREAS[name]


def find_network(area: str, code: str) -> Contract:
    """The contract of `area/code`. Raises `NotFound` for an unknown area or code."""
    return find_area(area).contract_of(code)
