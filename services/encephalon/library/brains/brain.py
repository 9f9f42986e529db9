"""A checked brain: regions, and pathways from outputs to inputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from encephalon.core.contract import Contract, TensorSpec
from encephalon.core.errors import FailedPrecondition
from encephalon.library.brains.document import Document

__all__ = ["Brain", "Endpoint", "Output", "Pathway", "Region"]

Placement = Literal["colocated", "distributed"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One tensor of one region; an empty region means an input of the brain."""

    region: str
    tensor: str

    def __str__(self) -> str:
        return f"{self.region}.{self.tensor}" if self.region else self.tensor


@dataclass(frozen=True, slots=True)
class Region:
    """One node. Either `network` ("vision/002") or `address` is set.

    `contract` is None as long as it must still be read from the server at `address`. `max_batch` is in rows.
    """

    name: str
    network: str
    address: str
    model: str
    contract: Contract | None
    weights: str | None
    arguments: Mapping[str, Any]
    replicas: int
    max_batch: int
    max_delay_s: float
    mailbox: int
    placement: Placement | None


@dataclass(frozen=True, slots=True)
class Pathway:
    """Where an activation goes, and how long and how often its source is asked (None: the defaults)."""

    source: Endpoint
    target: Endpoint
    optional: bool
    timeout_s: float | None
    retries: int | None
    hedge_s: float | None

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}"


@dataclass(frozen=True, slots=True)
class Output:
    name: str
    source: Endpoint


@dataclass(frozen=True)
class Brain:
    """A manifest that passed every check. Regions stand in an order in which each comes after all it needs."""

    name: str
    description: str
    inputs: tuple[TensorSpec, ...]
    regions: tuple[Region, ...]
    pathways: tuple[Pathway, ...]
    outputs: tuple[Output, ...]
    document: Document = field(repr=False, compare=False)

    def region(self, name: str) -> Region:
        return next(region for region in self.regions if region.name == name)

    @property
    def unresolved(self) -> tuple[Region, ...]:
        """The regions whose contract must be read from their server before the brain can run."""
        return tuple(region for region in self.regions if region.contract is None)

    @property
    def contract(self) -> Contract:
        """What the whole brain takes and gives. FailedPrecondition while a region's contract is unknown."""
        return Contract(self.inputs, tuple(self._output(output) for output in self.outputs))

    def resolved(self, contracts: Mapping[str, Contract]) -> Brain:
        """The brain with these regions' contracts filled in. InvalidManifest when they do not fit the pathways."""
        from encephalon.library.brains.loading import check_document

        return check_document(self.document, contracts)

    def to_json(self) -> str:
        """The manifest as it was written, as one line of JSON; `parse_manifest` reads it back."""
        return json.dumps(self.document.value, ensure_ascii=False, separators=(",", ":"))

    def _output(self, output: Output) -> TensorSpec:
        contract = self.region(output.source.region).contract
        if contract is None:
            raise FailedPrecondition(
                f"the contract of region '{output.source.region}' is not known; it is read when the brain is loaded",
                region=output.source.region,
            )
        spec = next(spec for spec in contract.outputs if spec.name == output.source.tensor)
        return TensorSpec(output.name, spec.datatype, spec.shape, spec.optional, spec.description)
