"""Brains: a manifest whose weights are pinned; those in files become networks of the library first."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.cli.library.adding import networks
from encephalon.cli.library.adding.conversion import Asked
from encephalon.cli.library.adding.given import Given
from encephalon.cli.library.adding.plan import Added, Options, Plan
from encephalon.core.errors import NotFound
from encephalon.library.brains import Brain, Region, load_manifest
from encephalon.library.brains.document import Document
from encephalon.library.brains.pinning import pinned
from encephalon.library.records import Reference
from encephalon.library.store.drafts import finished, says

if TYPE_CHECKING:
    from encephalon.library.library import Library
    from encephalon.library.store.writer import Writer

__all__ = ["plan"]

IN_A_STORE = ("object:", "library:")


def plan(source: str, given: Given, options: Options) -> Plan:
    """InvalidManifest for what is no brain; the networks of its weight files are called <brain>-<region>."""
    path = Path(source)
    brain = load_manifest(path)
    name = given.name or brain.name
    files = {
        region.name: asked(region, path)
        for region in brain.regions
        if region.weights and not region.weights.startswith(IN_A_STORE)
    }

    async def add(library: Library) -> Added:
        async with library.writing(f"add brain {name}") as writer:
            notes: list[str] = []
            added: dict[str, Reference] = {}
            for region, file in files.items():
                one = await networks.put(library, writer, file, f"{name}-{region}", Given(licence=given.licence))
                added[region] = Reference.of(one.record.id)
                notes += [f"region '{region}' runs {added[region]}", *one.notes]
            draft = await given.draft(library, "brain", name, path.name)
            body, parents = await pinned(library, named(brain, name), origin=path.name, networks=added)
            draft.brain.CopyFrom(body)
            draft.parents.extend(parents)
            draft.description = draft.description or brain.description
            return Added(await committed(library, writer, draft, given.alias), notes)

    return Plan("brain", name, add)


def asked(region: Region, manifest: Path) -> Asked:
    """Relative files lie beside the manifest."""
    source = manifest.parent / Path(region.weights or "").expanduser()
    if not source.is_file():
        raise NotFound(f"the weights of region '{region.name}' are not there: {source}", region=region.name)
    area, _, code = region.network.partition("/")
    return Asked(source, area, code, arguments={name: json.dumps(value) for name, value in region.arguments.items()})


def named(brain: Brain, name: str) -> Brain:
    """The same lines under another name, so that errors point into the file."""
    document = brain.document
    return replace(
        brain, name=name, document=Document(document.origin, {**document.value, "brain": name}, document.lines)
    )


async def committed(library: Library, writer: Writer, draft: pb.Record, alias: str | None) -> pb.Record:
    """A brain that says what its latest version says is that version, though it would come after it."""
    latest = next((parent.record for parent in draft.parents if parent.role == "previous"), None)
    if latest is not None:
        found = await library.show(Reference.of(latest))
        if says(without_previous(found)) == says(without_previous(finished(draft))):
            if alias is not None:
                await library.alias(Reference.of(found.id), alias)
            return found
    return await writer.commit(draft, alias=alias)


def without_previous(record: pb.Record) -> pb.Record:
    kept = pb.Record()
    kept.CopyFrom(record)
    del kept.parents[:]
    kept.parents.extend(parent for parent in record.parents if parent.role != "previous")
    return kept
