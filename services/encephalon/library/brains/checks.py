"""What must hold across a brain: every end exists, every input is bound once, types fit, and nothing runs in vain."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter

from encephalon.core.contract import TensorSpec
from encephalon.core.errors import InvalidManifest
from encephalon.library.brains.brain import Brain, Pathway, Region
from encephalon.library.brains.manifest import suggestion

__all__ = ["check_brain"]


def check_brain(brain: Brain) -> Brain:
    """The brain with its regions in running order. InvalidManifest names the line and the pathway or region."""
    regions = {region.name: region for region in brain.regions}
    for index, pathway in enumerate(brain.pathways):
        check_pathway(brain, regions, index, pathway)
    check_bound_once(brain)
    for region in brain.regions:
        check_bound(brain, region)
    for output in brain.outputs:
        check_output(brain, regions, output.name, output.source.region, output.source.tensor)
    ordered = check_acyclic(brain)
    check_useful(brain)
    return replace(brain, regions=tuple(regions[name] for name in ordered))


def check_pathway(brain: Brain, regions: dict[str, Region], index: int, pathway: Pathway) -> None:
    def error(sentence: str, key: str = "to") -> InvalidManifest:
        return brain.document.error(("pathways", index, key), f"pathway {pathway}: {sentence}", pathway=pathway)

    if not pathway.target.region:
        raise error(f"'{pathway.target}' is not an input of a region; name it as <region>.<input>")
    for endpoint, key in ((pathway.source, "from"), (pathway.target, "to")):
        if endpoint.region and endpoint.region not in regions:
            raise error(f"no region '{endpoint.region}'; {suggestion(endpoint.region, list(regions))}", key)
    target_contract = regions[pathway.target.region].contract
    target = None
    if target_contract is not None:
        target = find(target_contract.inputs, pathway.target.tensor)
        if target is None:
            raise error(missing(pathway.target.region, "input", pathway.target.tensor, target_contract.inputs))
    if pathway.source.region:
        contract = regions[pathway.source.region].contract
        specs = contract.outputs if contract is not None else None
        owner = pathway.source.region
    else:
        specs, owner = brain.inputs, "the brain"
    if specs is None:
        return
    kind = "output" if pathway.source.region else "input"
    source = find(specs, pathway.source.tensor)
    if source is None:
        raise error(missing(owner, kind, pathway.source.tensor, specs), "from")
    if not pathway.source.region and (pathway.timeout_s or pathway.hedge_s or pathway.retries is not None):
        raise error(
            "timeout_ms, retries and hedge_ms are about a region; this one comes from the brain's own input", "from"
        )
    if target is not None and (sentence := misfit(source, target)):
        raise error(sentence)


def misfit(source: TensorSpec, target: TensorSpec) -> str:
    if source.datatype != target.datatype:
        return f"{source.datatype} goes into {target.datatype}; put a region between them that converts"
    if len(source.shape) != len(target.shape):
        return f"shape {list(source.shape)} goes into {list(target.shape)}; they differ in rank"
    if any(-1 not in (one, other) and one != other for one, other in zip(source.shape, target.shape, strict=True)):
        return f"shape {list(source.shape)} does not fit into {list(target.shape)}"
    return ""


def check_bound_once(brain: Brain) -> None:
    first: dict[str, int] = {}
    for index, pathway in enumerate(brain.pathways):
        target = str(pathway.target)
        if target in first:
            line = brain.document.line(("pathways", first[target]))
            raise brain.document.error(
                ("pathways", index),
                f"pathway {pathway}: {target} has a pathway already, on line {line}",
                pathway=pathway,
            )
        first[target] = index


def check_bound(brain: Brain, region: Region) -> None:
    """Every required input has a pathway; a region whose inputs are all optional has at least one."""
    bound = {pathway.target.tensor for pathway in brain.pathways if pathway.target.region == region.name}
    path = ("regions", region.name)
    if not bound:
        raise brain.document.error(path, f"region '{region.name}' has no pathway to any input", region=region.name)
    for spec in region.contract.inputs if region.contract else ():
        if not spec.optional and spec.name not in bound:
            raise brain.document.error(
                path,
                f"region '{region.name}': no pathway to its input '{spec.name}' ({spec.datatype} {list(spec.shape)})",
                region=region.name,
            )


def check_output(brain: Brain, regions: dict[str, Region], name: str, region: str, tensor: str) -> None:
    path = ("outputs", name)
    if region not in regions:
        raise brain.document.error(
            path, f"output '{name}': no region '{region}'; {suggestion(region, list(regions))}", output=name
        )
    contract = regions[region].contract
    if contract is not None and find(contract.outputs, tensor) is None:
        raise brain.document.error(
            path, f"output '{name}': {missing(region, 'output', tensor, contract.outputs)}", output=name
        )


def check_acyclic(brain: Brain) -> list[str]:
    sorter: TopologicalSorter[str] = TopologicalSorter({region.name: () for region in brain.regions})
    for pathway in brain.pathways:
        if pathway.source.region:
            sorter.add(pathway.target.region, pathway.source.region)
    try:
        return list(sorter.static_order())
    except CycleError as error:
        circle: list[str] = error.args[1]
        index = next(
            index
            for index, pathway in enumerate(brain.pathways)
            if (pathway.source.region, pathway.target.region) == (circle[0], circle[1])
        )
        raise brain.document.error(
            ("pathways", index),
            f"pathway {brain.pathways[index]}: the regions run in a circle: {' -> '.join(circle)}",
            pathway=brain.pathways[index],
        ) from None


def check_useful(brain: Brain) -> None:
    """Nothing computes for nobody, and no input goes nowhere."""
    useful = {output.source.region for output in brain.outputs}
    grown = True
    while grown:
        sources = {path.source.region for path in brain.pathways if path.target.region in useful and path.source.region}
        grown = not sources <= useful
        useful |= sources
    for region in brain.regions:
        if region.name not in useful:
            raise brain.document.error(
                ("regions", region.name),
                f"region '{region.name}' reaches no output of the brain; remove it or name its output",
                region=region.name,
            )
    used = {pathway.source.tensor for pathway in brain.pathways if not pathway.source.region}
    for spec in brain.inputs:
        if spec.name not in used:
            raise brain.document.error(
                ("inputs", spec.name),
                f"input '{spec.name}' has no pathway to a region; remove it or add one",
                input=spec.name,
            )


def find(specs: Iterable[TensorSpec], name: str) -> TensorSpec | None:
    return next((spec for spec in specs if spec.name == name), None)


def missing(owner: str, kind: str, name: str, specs: Iterable[TensorSpec]) -> str:
    return f"{owner} has no {kind} '{name}'; it has {', '.join(spec.name for spec in specs) or 'none'}"
