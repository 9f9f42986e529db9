"""From a file or a text to a checked `Brain`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from encephalon.core.contract import Contract, TensorSpec
from encephalon.core.errors import InvalidManifest, NotFound
from encephalon.library.brains.brain import Brain, Endpoint, Output, Pathway, Region
from encephalon.library.brains.checks import check_brain
from encephalon.library.brains.document import MAX_BYTES, Document, read_document
from encephalon.library.brains.manifest import Manifest, ManifestPathway, ManifestRegion, ManifestTensor, read_manifest
from encephalon.library.brains.networks import contract_of

__all__ = ["check_document", "load_manifest", "parse_manifest"]

DEFAULT_MAX_BATCH = 32


def load_manifest(path: str | Path) -> Brain:
    """NotFound when there is no such file; InvalidManifest, naming line and pathway, when it cannot run."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise NotFound(f"cannot read the manifest {path}: {error.strerror or error}", path=path) from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidManifest(f"{path.name} line {line}: not UTF-8 text", origin=path.name, line=line) from None
    return parse_manifest(text, path.name)


def parse_manifest(text: str, origin: str = "manifest") -> Brain:
    """Reads YAML or JSON; `origin` is what errors call the text."""
    return check_document(read_document(text, origin), {})


def check_document(document: Document, contracts: Mapping[str, Contract]) -> Brain:
    """Builds and checks the brain; `contracts` are those of regions with an address, read from their servers."""
    manifest = read_manifest(document)
    brain = Brain(
        name=manifest.brain,
        description=manifest.description,
        inputs=tuple(spec_of(name, tensor) for name, tensor in manifest.inputs.items()),
        regions=tuple(region_of(name, item, document, contracts) for name, item in manifest.regions.items()),
        pathways=tuple(pathway_of(item) for item in manifest.pathways),
        outputs=outputs_of(manifest, document),
        document=document,
    )
    return check_brain(brain)


def spec_of(name: str, tensor: ManifestTensor) -> TensorSpec:
    return TensorSpec(name, tensor.datatype, tuple(tensor.shape), tensor.optional, tensor.description)


def region_of(name: str, item: ManifestRegion, document: Document, contracts: Mapping[str, Contract]) -> Region:
    contract = contract_of(name, item, document) or contracts.get(name)
    return Region(
        name=name,
        network=item.network or "",
        address=item.address or "",
        model=item.model or name,
        contract=contract,
        weights=item.weights,
        arguments=MappingProxyType(dict(item.arguments)),
        replicas=item.replicas,
        max_batch=item.max_batch or (1 if item.address else DEFAULT_MAX_BATCH),
        max_delay_s=item.max_delay_ms / 1000,
        mailbox=item.mailbox,
        placement=item.placement,
    )


def pathway_of(item: ManifestPathway) -> Pathway:
    return Pathway(
        source=endpoint(item.source),
        target=endpoint(item.target),
        optional=item.optional,
        timeout_s=seconds(item.timeout_ms),
        retries=item.retries,
        hedge_s=seconds(item.hedge_ms),
    )


def outputs_of(manifest: Manifest, document: Document) -> tuple[Output, ...]:
    outputs = tuple(Output(name, endpoint(source)) for name, source in manifest.outputs.items())
    for output in outputs:
        if not output.source.region:
            raise document.error(
                ("outputs", output.name),
                f"output '{output.name}' comes from '{output.source}'; name it as <region>.<output>",
            )
    return outputs


def endpoint(text: str) -> Endpoint:
    """Region names have no dot, so the first one ends the region's name."""
    region, dot, tensor = text.partition(".")
    return Endpoint(region, tensor) if dot else Endpoint("", text)


def seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
