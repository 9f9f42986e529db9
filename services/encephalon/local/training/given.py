"""What a user gives for a brain and a data set, as versions of the library that never change."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import InvalidInput, NotFound
from encephalon.library.brains import Brain, load_manifest
from encephalon.library.brains.pinning import pinned
from encephalon.library.brains.releases import brain_of
from encephalon.library.records import Reference

if TYPE_CHECKING:
    from encephalon.library.library import Library
    from encephalon.training.runs import RunSettings

__all__ = ["brain_record", "check_names", "data_record", "manifest_of"]

MANIFESTS = (".yaml", ".yml", ".json")


async def brain_record(library: Library, brain: str | Path) -> pb.Record:
    """Of `NAME`, `NAME@ALIAS`, `NAME@VERSION`; a manifest is added to the library first, unless it is what its latest
    version says. NotFound with the nearest name, InvalidManifest for what is no brain.
    """
    path = manifest_of(brain)
    if path is not None:
        return await added(library, path)
    try:
        return await library.show(str(brain), "brain")
    except NotFound as error:
        hint = "" if "@" in str(brain) else "; a manifest is a file that ends in .yaml"
        raise NotFound(error.message + hint, **error.details) from None


def manifest_of(brain: str | Path) -> Path | None:
    """None for a name."""
    path = Path(brain).expanduser()
    named = path.suffix.lower() in MANIFESTS or (os.sep in str(brain) and path.is_file())
    return path if isinstance(brain, Path) or named else None


async def data_record(library: Library, data: str) -> pb.Record:
    """NotFound with the nearest name, and how a data set comes into the library."""
    try:
        return await library.show(data, "data_set")
    except NotFound as error:
        what = data if data == "avmnist" else "FOLDER|TABLE --name NAME"
        raise NotFound(f"{error.message}; `encephalon library add {what}` adds one", **error.details) from None


async def added(library: Library, path: Path) -> pb.Record:
    brain = load_manifest(path)
    body, parents = await pinned(library, brain, origin=path.name)
    latest = next((parent.record for parent in parents if parent.role == "previous"), None)
    if latest is not None and (found := await library.show(Reference.of(latest))).brain == body:
        return found
    draft = pb.Record(
        id=pb.Reference(kind=pb.KIND_BRAIN, name=brain.name),
        description=brain.description,
        origin=path.name,
        brain=body,
        parents=parents,
    )
    return await library.add(draft)


def check_names(settings: RunSettings, brain: pb.Record, data: pb.Record) -> Brain:
    """The brain; InvalidInput, with the nearest name, when the settings name what it or the data set does not have."""
    found = brain_of(brain)
    regions = [region.name for region in found.regions]
    for field in ("learn", "freeze"):
        each_known(f"region of {brain.id.name} to {field}", getattr(settings, field), regions)
    each_known(f"input of {brain.id.name}", settings.inputs, [spec.name for spec in found.inputs])
    each_known(f"output of {brain.id.name}", settings.targets, [output.name for output in found.outputs])
    check_splits(settings, data)
    modalities = [modality.name for modality in data.data_set.modalities]
    wanted_modalities = [*settings.inputs.values(), *([settings.label] if settings.label else [])]
    each_known(f"modality of {data.id.name}", wanted_modalities, modalities)
    check_fed(settings, found, data)
    learners = set(settings.learn or regions) - set(settings.freeze)
    if not learners:
        raise InvalidInput(f"every region of brain '{brain.id.name}' is frozen; leave one that learns")
    return found


def check_splits(settings: RunSettings, data: pb.Record) -> None:
    """InvalidInput for a split that is not there, and for a share that cannot be held out."""
    splits = [split.name for split in data.data_set.splits]
    if not settings.split and "train" not in splits and len(splits) != 1:
        raise InvalidInput(
            f"no split of {data.id.name} is called train, there are {', '.join(splits)}; say which one is learned "
            f"from, --split {splits[0]}"
            if splits
            else f"data set '{data.id.name}' has no split to learn from"
        )
    wanted = [settings.split, settings.test.removeprefix("none")]
    if settings.validation not in splits:
        share = number_of(settings.validation or "0")
        if share is None:
            wanted.append(settings.validation)
        elif not 0 <= share < 1:
            raise InvalidInput(
                f"validation is {settings.validation}; a share that is held out is at least 0 and below 1"
            )
    each_known(f"split of {data.id.name}", [split for split in wanted if split], splits)


def number_of(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def check_fed(settings: RunSettings, brain: Brain, data: pb.Record) -> None:
    """InvalidInput when an input of the brain has no modality, or nothing says what is right."""
    modalities = {modality.name: modality.type for modality in data.data_set.modalities}
    unfed = [spec for spec in brain.inputs if spec.name not in modalities and spec.name not in settings.inputs]
    needed = [spec.name for spec in unfed if not spec.optional]
    if needed or len(unfed) == len(brain.inputs):
        name = needed[0] if needed else unfed[0].name
        raise InvalidInput(
            f"nothing in data set '{data.id.name}' is called like input '{name}' of brain '{brain.name}'; it has "
            f"{', '.join(modalities)}: say which one feeds it, --input {name}=MODALITY (inputs={{'{name}': ...}})",
            name=name,
        )
    labels = [name for name, kind in modalities.items() if kind == "label"]
    if not settings.label and len(labels) != 1:
        there = f"has {', '.join(labels)}" if labels else "has none"
        raise InvalidInput(
            f"what is right must be one modality of type label, and data set '{data.id.name}' {there}; name it with "
            "--label MODALITY"
        )


def each_known(what: str, names: Iterable[str], known: list[str]) -> None:
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}"
            raise InvalidInput(f"there is no {what} '{name}'; {hint}", name=name)
