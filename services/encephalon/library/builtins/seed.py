"""Puts what is built in into a library that does not know it yet: once per release, and never again after that.

What was put in and then removed or changed stays so. May be killed at any moment and run by many at once: each record
is looked for before it is written, and the marker comes last.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import AlreadyExists, Conflict, NotFound
from encephalon.library.areas import BUILT_IN
from encephalon.library.builtins.files import NETWORKS, example
from encephalon.library.extensions import with_onnx
from encephalon.library.records.kinds import name_of_kind
from encephalon.library.records.reference import Reference
from encephalon.library.store.drafts import finished, says
from encephalon.library.store.heads import read_head
from encephalon.state import ABSENT

if TYPE_CHECKING:
    from encephalon.library.library import Library
    from encephalon.library.store.writer import Writer

__all__ = ["seed"]

FORM = "1"
"""Of the records that are made of the same files."""
DEMO = "digits"
SAMPLE = "avmnist-sample"
RELEASED = "2026-11-24T00:00:00Z"
"""When what ships was made; goes with FORM."""
SAMPLE_FACTS = Path(__file__).parent.parent / "sample" / "data" / "pairs.json"  # whose package imports too much
ATTEMPTS = 20


async def seed(library: Library) -> None:
    """Reads one key when all is there. Else raises what writing raises, and goes on where it ended next time.

    Without pyarrow the sample is left out, until somebody opens the library who has it.
    """
    samples = importlib.util.find_spec("pyarrow") is not None
    wanted = digest(samples)
    if wanted in await seeded(library):
        return
    async with library.writing("seed") as writer:
        await put_all(library, writer, samples)
    await mark(library, wanted)


def digest(samples: bool) -> str:
    """Of all that is put in. The weights stand in it by their digests."""
    parts = [FORM.encode(), repr(BUILT_IN).encode(), NETWORKS.read_bytes(), example(DEMO).read_bytes()]
    parts += [SAMPLE_FACTS.read_bytes()] if samples else []
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def marker(library: Library) -> str:
    return f"{library.stores.keys.root}seeded"


async def seeded(library: Library) -> list[str]:
    """The digests of all releases whose built-ins were put in: releases that share a library leave each other alone."""
    entry = await library.key_value.get(marker(library))
    return [] if entry is None else list(json.loads(entry.value))


async def mark(library: Library, wanted: str) -> None:
    for _ in range(ATTEMPTS):
        entry = await library.key_value.get(marker(library))
        known = [] if entry is None else list(json.loads(entry.value))
        if wanted in known:
            return
        try:
            value = json.dumps([*known, wanted]).encode()
            await library.key_value.put(marker(library), value, expected=ABSENT if entry is None else entry.revision)
        except Conflict:
            continue
        return


async def put_all(library: Library, writer: Writer, samples: bool) -> None:
    from encephalon.library.brains.pinning import pinned
    from encephalon.library.builtins.drafts import LICENCE, PROJECT, TAGS, area_draft, file_of, network_draft, networks

    written: dict[tuple[str, str], pb.Reference] = {}
    for area in map(with_onnx, BUILT_IN):
        written["area", area.name] = await placed(library, writer, area_draft(area))
    for network in networks():
        weights = await writer.put_file(file_of(network))
        written["network", network["name"]] = await placed(library, writer, network_draft(network, weights, written))
    if samples:
        await put_sample(library, writer)
    # In a library of which others took hold meanwhile, the demo is still made of what ships.
    chosen = {region: Reference.of(written["network", name]) for region, name in demo_networks().items()}
    body, parents = await pinned(library, example(DEMO).read_text("utf-8"), origin=f"{DEMO}.yaml", networks=chosen)
    brain = pb.Record(
        id=pb.Reference(kind=pb.KIND_BRAIN, name=DEMO),
        description=json.loads(body.manifest).get("description", ""),
        tags=TAGS,
        # Not what was before it: that would be itself when this is done twice.
        parents=[parent for parent in parents if parent.role != "previous"],
        licence=LICENCE,
        origin=PROJECT,
        brain=body,
    )
    reference = await placed(library, writer, brain)
    await first_alias(library, reference)


def demo_networks() -> Mapping[str, str]:
    """Region to the network of this name."""
    from encephalon.library.brains import load_manifest

    return {region.name: region.network for region in load_manifest(example(DEMO)).regions}


async def placed(library: Library, writer: Writer, draft: pb.Record) -> pb.Reference:
    """The version that says what the draft says; written only when there is none, however many came after it."""
    kind, name = name_of_kind(draft.id.kind), draft.id.name
    said = says(finished(draft))
    for version in reversed(await versions(library, kind, name)):
        record = await library.show(Reference(name, version, kind))
        if says(record) == said:
            return record.id
    return (await (await writer_of(library, writer, kind, name)).commit(draft, reuse=True)).id


async def writer_of(library: Library, writer: Writer, kind: str, name: str) -> Writer:
    """A number that was given once is not given again, though what had it was removed."""
    head = await read_head(library.stores, kind, name)
    return writer if head.given else cast("Writer", First(writer))


class First:
    """A writer, as far as one is needed here, of version 1 of what ships, with time and author of the release: in every
    library it is the same record, so what one exports with its parents another takes in.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.put_file, self.put_bytes = writer.put_file, writer.put_bytes

    async def commit(self, draft: pb.Record, *, reuse: bool = True) -> pb.Record:
        record = finished(draft)
        record.id.version = 1
        record.created_time.FromJsonString(RELEASED)
        record.created_by = record.code_version = "encephalon"
        try:
            await self._writer.put_record(record)
        except AlreadyExists:  # somebody was faster with another one
            return await self._writer.commit(draft, reuse=reuse)
        return record


async def versions(library: Library, kind: str, name: str) -> list[int]:
    try:
        return await library.versions(kind, name)
    except NotFound:
        return []


async def put_sample(library: Library, writer: Writer) -> None:
    if await versions(library, "data_set", SAMPLE):
        return
    from encephalon.library.builtins.drafts import sample_fields
    from encephalon.library.datasets import add_arrays, avmnist_modalities
    from encephalon.library.sample import load_sample

    sample = load_sample()
    await add_arrays(
        await writer_of(library, writer, "data_set", SAMPLE),
        SAMPLE,
        {"image": sample.images, "audio": sample.audio, "label": sample.labels},
        {"test": slice(None)},
        avmnist_modalities(sample.audio.shape[1]),
        made_by="avmnist",
        parameters=json.loads(SAMPLE_FACTS.read_text("utf-8"))["parameters"],
        **sample_fields(),
    )


async def first_alias(library: Library, reference: pb.Reference) -> None:
    """`production`, unless somebody has decided already."""
    try:
        await library.alias(Reference.of(reference), "production", expected=0)
    except Conflict:
        return
