"""A functional area as data: what its networks take and give, which there are, and where their code is found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from encephalon.core.contract import Contract
from encephalon.core.errors import FailedPrecondition, NotFound

__all__ = ["ONNX", "ONNX_LOAD", "OWN", "Area"]

OWN = "encephalon"
"""The distribution that brings the built-in areas."""

ONNX = "900"
"""In every area with a contract: an ONNX graph that fulfils it."""

ONNX_LOAD = "encephalon.areas.graph.onnx:load"


def _empty() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Area:
    """A functional area of the brain: a contract, and the networks that fulfil it. Plain data: making one imports
    nothing that computes.

    A package may bring one of its own, or add networks to one that is there: see `encephalon.library.extensions`.
    """

    name: str
    """Small letters, digits and '_', a letter first."""
    description: str
    contract: Contract | None
    """What every network of the area takes and gives (a network may narrow -1 to a size); None where each has its
    own."""
    networks: Mapping[str, str]
    """Three-digit code to title."""
    load: str
    """`package.module:function`, imported when a network is loaded, and called with `(code, weights, arguments)`: a
    file, its bytes or None, and a mapping. It returns an `encephalon.areas.Network`."""
    contracts: Mapping[str, Contract] = field(default_factory=_empty)
    """Three-digit code to contract, in an area whose networks have their own. A network of such an area that is not
    in it has a contract that only its file tells; whoever uses it writes down inputs and outputs."""
    package: str = OWN
    """The distribution that brings the area."""
    loads: Mapping[str, str] = field(default_factory=_empty)
    """Code to loader, for networks that other packages add."""
    packages: Mapping[str, str] = field(default_factory=_empty)
    """Code to distribution, for networks that other packages add."""
    faults: tuple[str, ...] = ()
    """Why networks that packages wanted to add are not there."""

    def contract_of(self, code: str) -> Contract:
        """The contract of a network before its arguments narrow it.

        Raises `NotFound`, naming the codes that there are; `FailedPrecondition` for a network whose contract only its
        file tells, and when the package that may have brought the code is broken.
        """
        self.check(code)
        contract = self.contracts.get(code, self.contract)
        if contract is None:
            raise FailedPrecondition(
                f"network {self.name}/{code} has a contract of its own; give its inputs and outputs",
                area=self.name,
                network=code,
            )
        return contract

    def has_own_contract(self, code: str) -> bool:
        """Whether the contract of this network is told by its file alone. Raises as `contract_of` does."""
        self.check(code)
        return self.contract is None and code not in self.contracts

    def load_of(self, code: str) -> str:
        """`package.module:function` of a network. Raises as `contract_of` does."""
        self.check(code)
        return self.loads.get(code, self.load)

    def package_of(self, code: str) -> str:
        """The distribution that brings a network. Raises as `contract_of` does."""
        self.check(code)
        return self.packages.get(code, self.package)

    def check(self, code: str) -> None:
        """Raises `NotFound` or `FailedPrecondition` for a code that is not there."""
        if code in self.networks:
            return
        there = ", ".join(f"{known} {title}" for known, title in self.networks.items()) or "none"
        sentence = f"area '{self.name}' has no network '{code}'; it has {there}"
        if self.faults:
            raise FailedPrecondition(f"{sentence} ({'; '.join(self.faults)})", area=self.name, network=code)
        raise NotFound(sentence, area=self.name, network=code)
