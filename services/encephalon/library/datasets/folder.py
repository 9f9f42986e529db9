"""A folder with a folder per class of pictures or sounds."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import InvalidInput
from encephalon.library.avmnist.progress import Progress
from encephalon.library.datasets.files import FileColumn, Listing, PlainColumn, file_parts, media_for, media_type
from encephalon.library.datasets.options import DataSetOptions
from encephalon.library.datasets.source import Broken, Source
from encephalon.library.datasets.splitting import drawn_splits, ordered, split_rows

__all__ = ["folder_source"]

SPLITS: Final = ("train", "test", "validation", "valid", "val", "dev")
"""Folders above the classes that are taken for splits, when there are no others."""

LITTER: Final = ("Thumbs.db", "desktop.ini")
"""What file managers leave behind, beside hidden files."""


class _File(NamedTuple):
    split: str
    label: str
    path: str
    """Below the folder, with `/`."""


def folder_source(folder: Path, options: DataSetOptions, progress: Progress) -> Source:
    """Reads `folder/<class>/**` or `folder/<split>/<class>/**`; every file of a class folder is a sample.

    Raises `InvalidInput` when there are no class folders, pictures and sounds are mixed, or files are broken.
    """
    _check_options(folder, options)
    broken = Broken(options.skip_broken)
    found = [file for split, above in _splits(folder) for file in _files(folder, above, split)]
    if not found:
        raise InvalidInput(f"{folder} holds no folder per class with files in it; expected <class>/<files>")
    listing = _listing(folder, found, options)
    modalities, parts = file_parts(listing, options, broken, progress)
    return Source(
        recipe="folder",
        modalities=modalities,
        parts=parts,
        parameters=options.as_parameters(),
        origin=folder.resolve().name,
        broken=broken,
    )


def _listing(folder: Path, found: Sequence[_File], options: DataSetOptions) -> Listing:
    kind = _kind(folder, found)
    classes = ordered(file.label for file in found)
    number = {name: at for at, name in enumerate(classes)}
    labels = np.array([number[file.label] for file in found], np.int64)
    label = pb.Modality(name="label", type="label", datatype="INT64", classes=classes)
    splits = {file.split for file in found}
    if options.split is not None and splits != {"train"}:
        raise InvalidInput(f"{folder} has a folder for each split ({', '.join(ordered(splits))}); leave out split")
    divided = (
        split_rows(file.split for file in found)
        if options.split is None
        else drawn_splits(labels, options.split, options.seed, lambda row: found[row].path)
    )
    column = FileColumn(
        kind, media_for(kind, options), lambda row: folder / found[row].path, lambda row: found[row].path
    )
    plain = PlainColumn(label, lambda row: int(labels[row]), lambda row: found[row].path)
    return Listing(len(found), [column], [plain], divided)


def _splits(folder: Path) -> Iterator[tuple[str, Path]]:
    inside = _folders(folder)
    if inside and set(inside) <= set(SPLITS):
        yield from ((name, folder / name) for name in inside)
    else:
        yield "train", folder


def _files(folder: Path, above: Path, split: str) -> Iterator[_File]:
    """Every file of a class folder, in the order of paths; an empty class is a mistake that is told."""
    for label in _folders(above):
        paths = sorted(_below(above / label))
        if not paths:
            raise InvalidInput(f"the class folder {above / label} holds no file; fill it, or remove it")
        for path in paths:
            yield _File(split, label, path.relative_to(folder).as_posix())


def _below(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in names if not name.startswith(".") and name not in LITTER)


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _kind(folder: Path, found: Sequence[_File]) -> str:
    counts = Counter(kind for file in found if (kind := media_type(file.path)))
    if not counts:
        raise InvalidInput(f"{folder} holds neither pictures nor sounds; it holds for example {found[0].path}")
    if len(counts) > 1:
        raise InvalidInput(
            f"{folder} holds {counts['image']} pictures and {counts['audio']} sounds; a folder gives one of them, a "
            "table gives both"
        )
    return next(iter(counts))


def _check_options(folder: Path, options: DataSetOptions) -> None:
    for name in ("modalities", "types", "label", "split_column"):
        if getattr(options, name):
            raise InvalidInput(f"the option {name} does not fit {folder}, which is a folder of classes", option=name)
