"""The next version of a brain, in which regions run other networks of the library; what must go along goes along."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import InvalidInput, InvalidManifest, NotFound
from encephalon.library.brains.brain import Brain
from encephalon.library.brains.pinning import pinned
from encephalon.library.brains.releases import brain_of
from encephalon.library.records import Reference
from encephalon.library.store.keys import reference_of

if TYPE_CHECKING:
    from encephalon.library.library import Library

__all__ = ["Swap", "swapped"]

MAX_CHILDREN = 1000


@dataclass(frozen=True, slots=True)
class Swap:
    """`draft` is the brain's next version; `networks` those that were asked for, `carried` those that go along, each by
    its region.
    """

    draft: pb.Record
    networks: Mapping[str, Reference]
    carried: Mapping[str, Reference]


async def swapped(library: Library, before: pb.Record, changes: Mapping[str, str]) -> Swap:
    """`changes`: region to a network of the library, of the area that the region has.

    Where the sizes of a changed region do not fit the next one, and exactly one network of the library fits there that
    was trained with it, that one goes along. InvalidManifest, naming the pathway and what would fit, when there is not
    one such; NotFound, InvalidInput for what cannot be.
    """
    brain = brain_of(before)
    asked = {region: await library.show(network, "network") for region, network in changes.items()}
    for region, record in asked.items():
        check_area(brain, region, record)
    carried: dict[str, pb.Record] = {}
    while True:
        try:
            body, parents = await attempt(library, brain, before, {**asked, **carried})
            break
        except InvalidManifest as error:
            region, companion = await companion_for(library, brain, before, {**asked, **carried}, error)
            carried[region] = companion
    if body.manifest == before.brain.manifest:
        names = ", ".join(f"region '{region}' runs {record.id.name}" for region, record in asked.items())
        raise InvalidInput(f"{names} already; there is nothing to change")
    parents = [parent for parent in parents if parent.role != "previous"]
    return Swap(
        pb.Record(
            id=pb.Reference(kind=pb.KIND_BRAIN, name=before.id.name),
            description=told(brain, before, {**asked, **carried}),
            tags=before.tags,
            parents=[*parents, pb.Parent(record=before.id, role="previous")],
            licence=before.licence,
            origin=before.origin,
            brain=body,
        ),
        {region: Reference.of(record.id) for region, record in asked.items()},
        {region: Reference.of(record.id) for region, record in carried.items()},
    )


def check_area(brain: Brain, name: str, record: pb.Record) -> None:
    found = next((region for region in brain.regions if region.name == name), None)
    if found is None:
        there = ", ".join(region.name for region in brain.regions)
        raise NotFound(f"brain '{brain.name}' has no region '{name}'; it has {there}", region=name)
    if found.address:
        raise InvalidInput(f"region '{name}' runs elsewhere; its network is not changed from here", region=name)
    area = found.network.partition("/")[0]
    if record.network.area != area:
        raise InvalidInput(
            f"region '{name}' is of area {area}, and network '{record.id.name}' of area {record.network.area}; "
            "choose one of the same area",
            region=name,
        )


async def attempt(
    library: Library, brain: Brain, before: pb.Record, chosen: Mapping[str, pb.Record]
) -> tuple[pb.Brain, list[pb.Parent]]:
    networks = {region: Reference.of(record.id) for region, record in chosen.items()}
    return await pinned(library, brain, networks=networks, known=before.brain.networks)


async def companion_for(
    library: Library, brain: Brain, before: pb.Record, chosen: Mapping[str, pb.Record], error: InvalidManifest
) -> tuple[str, pb.Record]:
    """The region behind the pathway that does not fit, and the one network that it can have instead."""
    path = next((path for path in brain.pathways if str(path) == error.details.get("pathway")), None)
    if path is None or path.source.region not in chosen or path.target.region in chosen:
        raise error
    source, target = path.source.region, path.target.region
    area = brain.region(target).network.partition("/")[0]
    fitting = [
        record
        for record in await trained_with(library, chosen[source].id, area)
        if await fits(library, brain, before, {**chosen, target: record}, target)
    ]
    # Of several, the one that knows the other networks before it as well.
    others = {source_id for region in sources(brain, target) if (source_id := id_in(before, chosen, region))}
    best = [record for record in fitting if others <= parents_of(record)] if len(fitting) > 1 else fitting
    if len(best) != 1:
        raise misfit(error, target, chosen[source], best or fitting)
    return target, best[0]


def misfit(error: InvalidManifest, target: str, network: pb.Record, fitting: list[pb.Record]) -> InvalidManifest:
    if fitting:
        names = " or ".join(f"{target}={record.id.name}" for record in fitting)
        hint = f"swap the region behind it too, with {names}"
    else:
        hint = f"no network of the library for region '{target}' was trained with {network.id.name} and fits"
    return InvalidManifest(f"{error.message}; {hint}", **error.details)


async def trained_with(library: Library, id: pb.Reference, area: str) -> list[pb.Record]:
    """The newest version of each network of the area that names this one among its parents."""
    newest: dict[str, pb.Record] = {}
    keys = library.stores.keys
    children = library.key_value.list(keys.children(id))
    count = 0
    async with contextlib.aclosing(children):
        async for entry in children:
            count += 1
            child = reference_of(keys.parts(entry.key)[-3:])
            if child.kind != pb.KIND_NETWORK or count > MAX_CHILDREN:
                continue
            with contextlib.suppress(NotFound):  # removed meanwhile
                record = await library.show(Reference.of(child))
                known = newest.get(record.id.name)
                if record.network.area == area and (known is None or known.id.version < record.id.version):
                    newest[record.id.name] = record
    return [record for record in newest.values() if (id.name, id.version) in parents_of(record)]


async def fits(library: Library, brain: Brain, before: pb.Record, chosen: Mapping[str, pb.Record], target: str) -> bool:
    """What does not fit elsewhere is not this network's fault."""
    try:
        await attempt(library, brain, before, chosen)
    except InvalidManifest as error:
        inputs = {str(path) for path in brain.pathways if path.target.region == target}
        return error.details.get("pathway", "") not in ("", *inputs)
    return True


def sources(brain: Brain, target: str) -> set[str]:
    return {path.source.region for path in brain.pathways if path.target.region == target and path.source.region}


def id_in(before: pb.Record, chosen: Mapping[str, pb.Record], region: str) -> tuple[str, int] | None:
    id = chosen[region].id if region in chosen else before.brain.networks.get(region)
    return (id.name, id.version) if id is not None and id.version else None


def parents_of(record: pb.Record) -> set[tuple[str, int]]:
    return {(parent.record.name, parent.record.version) for parent in record.parents if parent.role == "network"}


def told(brain: Brain, before: pb.Record, chosen: Mapping[str, pb.Record]) -> str:
    """What is other than before, in words."""
    changes = [
        f"{region} from {before.brain.networks[region].name} to {record.id.name}"
        if region in before.brain.networks
        else f"{region} from {brain.region(region).network} to {record.id.name}"
        for region, record in chosen.items()
    ]
    return f"{before.id.name}@{before.id.version} with {', '.join(changes)}"
