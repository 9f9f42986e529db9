"""Where a region's contract comes from: its area, the manifest, or (later) the server at its address."""

from __future__ import annotations

from encephalon.core.contract import Contract, TensorSpec
from encephalon.core.errors import FailedPrecondition
from encephalon.library.areas import AREAS, Area
from encephalon.library.brains.document import Document
from encephalon.library.brains.manifest import ManifestRegion, ManifestTensor, suggestion

__all__ = ["contract_of"]

ONLY_NETWORK = ("weights", "arguments", "replicas", "mailbox", "max_delay_ms", "placement")
ONLY_ADDRESS = ("model",)


def contract_of(name: str, region: ManifestRegion, document: Document) -> Contract | None:
    """The contract of a region, None when it must be read from its server. InvalidManifest for an unknown network."""
    path = ("regions", name)
    if (region.network is None) == (region.address is None):
        which = "both a network and an address" if region.network else "neither a network nor an address"
        raise document.error(path, f"region '{name}' has {which}; give one of them", region=name)
    for key in ONLY_ADDRESS if region.network else ONLY_NETWORK:
        if key in region.model_fields_set:
            kind = "an address" if region.network else "a network"
            raise document.error((*path, key), f"'{key}' of region '{name}' goes only with {kind}", region=name)
    return area_contract(name, region, document) if region.network else written_contract(name, region, document)


def area_contract(name: str, region: ManifestRegion, document: Document) -> Contract:
    network = region.network or ""
    area_name, _, code = network.partition("/")
    area = area_of(name, area_name, code, document)
    written = written_contract(name, region, document)
    if not area.has_own_contract(code):
        if written is not None:
            key = "inputs" if region.inputs else "outputs"
            raise document.error(
                ("regions", name, key),
                f"'{key}' of region '{name}' goes only with an address or a network whose contract its file tells; "
                f"that of {network} is known",
                region=name,
            )
        return area.contract_of(code)
    if written is None:
        raise document.error(
            ("regions", name),
            f"region '{name}': network {network} has a contract of its own; give its inputs and outputs",
            region=name,
        )
    return written


def area_of(name: str, area_name: str, code: str, document: Document) -> Area:
    """The area, which has this code. A package that is broken is as one that is not there, but says why."""
    path = ("regions", name, "network")
    try:
        area = AREAS.get(area_name)
        if area is not None and code not in area.networks and area.faults:
            area.check(code)
    except FailedPrecondition as error:
        raise document.error(path, f"region '{name}': {error.message}", region=name) from None
    if area is None:
        raise document.error(
            path, f"region '{name}': no area '{area_name}'; {suggestion(area_name, list(AREAS))}", region=name
        )
    if code not in area.networks:
        known = ", ".join(f"{code} {title}" for code, title in area.networks.items())
        raise document.error(
            path, f"region '{name}': area {area_name} has no network {code}; it has {known}", region=name
        )
    return area


def written_contract(name: str, region: ManifestRegion, document: Document) -> Contract | None:
    if region.inputs is None and region.outputs is None:
        return None
    if not region.inputs or not region.outputs:
        missing = "outputs" if region.inputs else "inputs"
        raise document.error(
            ("regions", name), f"region '{name}' gives no {missing}; give inputs and outputs, or neither", region=name
        )
    return Contract(specs(region.inputs), specs(region.outputs))


def specs(tensors: dict[str, ManifestTensor]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name, tensor.datatype, tuple(tensor.shape), tensor.optional, tensor.description)
        for name, tensor in tensors.items()
    )
