"""A manifest as the library keeps it: every network's weights named by their digest, so that it always means the same.

What a region names before: `weights: library:NAME[@VERSION or ALIAS]`, or only `network: AREA/CODE`, which means the
network of this name in the library. Networks that have no weights stay without.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.contract import Contract, TensorSpec
from encephalon.core.errors import InvalidInput, NotFound
from encephalon.library.areas import find_area
from encephalon.library.brains.brain import Brain
from encephalon.library.brains.checks import check_brain
from encephalon.library.brains.document import Document, read_document
from encephalon.library.brains.loading import check_document
from encephalon.library.brains.manifest import Manifest, ManifestRegion, read_manifest
from encephalon.library.builtins import packaged_weights
from encephalon.library.records import Reference

if TYPE_CHECKING:
    from encephalon.library.library import Library

__all__ = ["check_fit", "contract_message", "contract_read", "pinned"]

LIBRARY = "library:"
OBJECT = "object:sha256:"


@dataclass(frozen=True, slots=True)
class Pin:
    """What a region runs: its record, if it has one, and the keys of the manifest that say so."""

    record: pb.Record | None
    keys: Mapping[str, Any]


async def pinned(
    library: Library,
    brain: Brain | str,
    *,
    origin: str = "manifest",
    networks: Mapping[str, Reference | str] | None = None,
    known: Mapping[str, pb.Reference] | None = None,
) -> tuple[pb.Brain, list[pb.Parent]]:
    """The body of a brain's record and its parents: its networks ("network") and the brain's latest version
    ("previous").

    `networks` puts networks of the library in the place of what regions name: a weights file must have been added
    before. `known` tells of which records regions are that are pinned already. InvalidManifest, naming line and
    pathway, when the networks do not fit each other; NotFound and InvalidInput when a region names what cannot be.
    """
    document = brain.document if isinstance(brain, Brain) else read_document(brain, origin)
    manifest = read_manifest(document)
    chosen, before = networks or {}, known or {}
    check_regions(manifest, chosen)
    pins = {
        name: await pin_of(library, name, region, chosen.get(name), before.get(name))
        for name, region in manifest.regions.items()
        if region.address is None
    }
    found = check_document(with_pins(document, pins), {})
    records = {name: pin.record for name, pin in pins.items() if pin.record is not None}
    check_fit(found, records)
    return (
        pb.Brain(
            manifest=found.to_json(),
            networks={name: record.id for name, record in records.items()},
            contract=None if found.unresolved else contract_message(found.contract),
        ),
        [*parents_of(records), *await previous(library, found.name)],
    )


def check_regions(manifest: Manifest, chosen: Mapping[str, Reference | str]) -> None:
    for name in chosen:
        if name not in manifest.regions:
            there = ", ".join(manifest.regions)
            raise NotFound(f"brain '{manifest.brain}' has no region '{name}'; it has {there}", region=name)
        if manifest.regions[name].address is not None:
            raise InvalidInput(f"region '{name}' runs elsewhere; its network is not changed from here", region=name)


async def pin_of(
    library: Library, name: str, region: ManifestRegion, chosen: Reference | str | None, known: pb.Reference | None
) -> Pin:
    if chosen is not None:
        return of_record(name, await library.show(chosen, "network"), arguments=None)
    weights, arguments = region.weights or "", dict(region.arguments) or None
    if weights.startswith(LIBRARY):
        record = await library.show(weights.removeprefix(LIBRARY), "network")
        check_same(name, region, record)
        return of_record(name, record, arguments)
    if weights.startswith(OBJECT):
        before = await library.show(Reference.of(known)) if known is not None else None
        same = before is not None and pinned_weights(before.network) == weights
        return Pin(before if same else None, {})
    if weights:
        raise InvalidInput(
            f"the weights of region '{name}' are the file {weights}, which the library cannot name; "
            f"add it as a network first, then write weights: {LIBRARY}NAME",
            region=name,
        )
    return await of_code(library, name, region, arguments)


async def of_code(library: Library, name: str, region: ManifestRegion, arguments: dict[str, Any] | None) -> Pin:
    """The library's network of this name; one that needs no weights need not be there."""
    network = region.network or ""
    try:
        record = await library.show(network, "network")
    except NotFound:
        area, _, code = network.partition("/")
        try:
            packaged_weights(area, code)
        except NotFound:
            return Pin(None, {})
        raise
    check_same(name, region, record)
    return of_record(name, record, arguments)


def check_same(name: str, region: ManifestRegion, record: pb.Record) -> None:
    network = f"{record.network.area}/{record.network.code}"
    if region.network not in (None, network):
        raise InvalidInput(
            f"region '{name}' is of network {region.network}, and network '{record.id.name}' of the library is of "
            f"{network}; write network: {network}",
            region=name,
        )


def of_record(name: str, record: pb.Record, arguments: dict[str, Any] | None) -> Pin:
    network = record.network
    keys: dict[str, Any] = {
        "network": f"{network.area}/{network.code}",
        "weights": pinned_weights(network),
        "arguments": arguments if arguments is not None else json.loads(network.arguments or "{}"),
        "inputs": None,
        "outputs": None,
    }
    if find_area(network.area).has_own_contract(network.code):
        if not network.HasField("contract"):
            raise InvalidInput(
                f"region '{name}': network '{record.id.name}' of the library has no contract; add it again",
                region=name,
            )
        keys["inputs"], keys["outputs"] = written(network.contract.inputs), written(network.contract.outputs)
    return Pin(record, keys)


def pinned_weights(network: pb.Network) -> str | None:
    return f"{OBJECT}{network.weights.sha256}" if network.HasField("weights") else None


def written(specs: Any) -> dict[str, Any]:
    return {
        spec.name: {"datatype": spec.datatype, "shape": list(spec.shape), "optional": spec.optional} for spec in specs
    }


def with_pins(document: Document, pins: Mapping[str, Pin]) -> Document:
    """The same lines, so that errors point into what was written."""
    regions = dict(document.value["regions"])
    for name, pin in pins.items():
        keys = {key: value for key, value in regions[name].items() if key not in pin.keys}
        regions[name] = keys | {key: value for key, value in pin.keys.items() if value not in (None, {})}
    return Document(document.origin, {**document.value, "regions": regions}, document.lines)


def check_fit(brain: Brain, records: Mapping[str, pb.Record]) -> None:
    """InvalidManifest, naming the pathway, unless the sizes that weights fix fit each other too."""
    narrowed = [
        replace(region, contract=contract_read(records[region.name].network.contract))
        if region.name in records and records[region.name].network.HasField("contract")
        else region
        for region in brain.regions
    ]
    check_brain(replace(brain, regions=tuple(narrowed)))


def parents_of(records: Mapping[str, pb.Record]) -> list[pb.Parent]:
    """One network may be that of several regions."""
    ids = {(record.id.name, record.id.version): record.id for record in records.values()}
    return [pb.Parent(record=id, role="network") for id in ids.values()]


async def previous(library: Library, name: str) -> list[pb.Parent]:
    try:
        latest = await library.resolve(Reference(name, kind="brain"))
    except NotFound:
        return []
    return [pb.Parent(record=latest.message, role="previous")]


def contract_message(contract: Contract) -> pb.Contract:
    return pb.Contract(
        inputs=[spec_message(spec) for spec in contract.inputs],
        outputs=[spec_message(spec) for spec in contract.outputs],
    )


def spec_message(spec: TensorSpec) -> pb.TensorSpec:
    return pb.TensorSpec(
        name=spec.name,
        datatype=spec.datatype,
        shape=spec.shape,
        optional=spec.optional,
        description=spec.description,
    )


def contract_read(message: pb.Contract) -> Contract:
    def read(specs: Any) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(spec.name, spec.datatype, tuple(spec.shape), spec.optional, spec.description) for spec in specs
        )

    return Contract(read(message.inputs), read(message.outputs))
