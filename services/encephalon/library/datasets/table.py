"""A table (CSV, TSV or Parquet) whose rows are samples and whose columns name files, labels and splits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import InvalidInput
from encephalon.library.avmnist.progress import Progress
from encephalon.library.datasets.cells import TABLES, Cells
from encephalon.library.datasets.columns import Value
from encephalon.library.datasets.files import FileColumn, Listing, PlainColumn, file_parts, media_for, media_type
from encephalon.library.datasets.media import Unreadable
from encephalon.library.datasets.options import DataSetOptions
from encephalon.library.datasets.source import Broken, Source
from encephalon.library.datasets.splitting import drawn_splits, split_rows

__all__ = ["TABLES", "table_source"]

LABELS: Final = ("label", "class")
SPLIT: Final = "split"

CLASS_BYTES: Final = 128 << 10
"""Of the names of all classes: a record has no room for more."""


@dataclass(frozen=True, slots=True)
class _Roles:
    """What the columns are for."""

    types: Mapping[str, str]
    """Modality to "image", "audio", "text" or "number"."""
    columns: Mapping[str, str]
    """Modality to column."""
    label: str | None
    split: str | None


def table_source(path: Path, options: DataSetOptions, progress: Progress) -> Source:
    """One sample per row; files are found relative to the table's folder, and never outside of it.

    The table itself is held in memory, what it names is not. Raises `InvalidInput` for what is no table, for columns
    that are not there and for broken files, which are named with their rows (counted from 1 below the header).
    """
    cells = Cells(path)
    broken = Broken(options.skip_broken)
    modalities, parts = file_parts(_listing(cells, _roles(cells, options), options), options, broken, progress)
    return Source(
        recipe="table",
        modalities=modalities,
        parts=parts,
        parameters=options.as_parameters(),
        origin=path.name,
        broken=broken,
    )


def _roles(cells: Cells, options: DataSetOptions) -> _Roles:
    taken = set(options.modalities.values())
    label = options.label or next((name for name in LABELS if name in cells.names and name not in taken), None)
    split = options.split_column or (SPLIT if SPLIT in cells.names and SPLIT not in taken else None)
    if split and options.split is not None:
        raise InvalidInput(f"the column '{split}' of {cells.path} names the splits already; leave out split")
    columns = options.modalities or {
        name: name for name in cells.names if name not in (label, split) and cells.plain(name)
    }
    types = {name: options.types.get(name) or _type(cells, column) for name, column in columns.items()}
    if not options.modalities:
        types = {name: kind for name, kind in types.items() if kind in ("image", "audio")}
    if not types:
        raise InvalidInput(
            f"no column of {cells.path} names pictures or sounds; it has {', '.join(cells.names)}; say what each "
            "modality is with modalities"
        )
    if any(not name or len(name) > 64 or (label and name == "label") for name in types):
        raise InvalidInput("a modality needs a name of 1 to 64 characters that is not 'label'")
    return _Roles(types, {name: columns[name] for name in types}, label, split)


def _type(cells: Cells, column: str) -> str:
    """As the first cells show it."""
    for text in cells.first(column):
        return media_type(text) or ("number" if _is_number(text) else "text")
    return "text"


def _listing(cells: Cells, roles: _Roles, options: DataSetOptions) -> Listing:
    files = [_file(cells, n, roles, options) for n, kind in roles.types.items() if kind in ("image", "audio")]
    plain = [_plain(cells, n, roles.columns[n], kind) for n, kind in roles.types.items() if kind in ("text", "number")]
    labels = np.zeros(cells.count, np.int64)
    if roles.label is not None:
        labels, column = _label(cells, roles.label)
        plain.append(column)
    unfit: dict[int, str] = {}
    divided: Mapping[str, NDArray[np.int64]]
    if options.split is not None:
        divided = drawn_splits(labels, options.split, options.seed, partial(_identity, cells, roles))
    elif roles.split is not None:
        names = [cells.text(roles.split, row) for row in range(cells.count)]
        unfit = {row: f"row {row + 1} names no split" for row, name in enumerate(names) if not name}
        divided = split_rows(names)
        divided.pop("", None)
        _check_splits(cells, divided)
    else:
        divided = {"train": np.arange(cells.count)}
    return Listing(cells.count, files, plain, divided, unfit)


def _file(cells: Cells, name: str, roles: _Roles, options: DataSetOptions) -> FileColumn:
    column = roles.columns[name]
    return FileColumn(
        name,
        media_for(roles.types[name], options),
        lambda row: cells.file(column, row),
        lambda row: f"row {row + 1}, {column}: {cells.text(column, row)[:200]!r}",
    )


def _plain(cells: Cells, name: str, column: str, kind: str) -> PlainColumn:
    def named(row: int) -> str:
        return f"row {row + 1}, {column}"

    if kind == "text":
        modality = pb.Modality(name=name, type="text", datatype="BYTES")
        return PlainColumn(modality, lambda row: cells.text(column, row), named)
    whole = all(_is_whole(text) for row in range(cells.count) if _is_number(text := cells.text(column, row)))
    modality = pb.Modality(name=name, type="tensor", datatype="INT64" if whole else "FP64")

    def number(row: int) -> Value:
        text = cells.text(column, row)
        if not _is_number(text):
            raise Unreadable(f"is {text[:60]!r}, expected a number")
        return int(text) if whole else float(text)

    return PlainColumn(modality, number, named)


def _label(cells: Cells, column: str) -> tuple[NDArray[np.int64], PlainColumn]:
    classes, labels = cells.classes(column)
    if sum(len(name.encode()) + 8 for name in classes) > CLASS_BYTES:
        raise InvalidInput(f"the column '{column}' has {len(classes)} different labels, too many to be classes")

    def label(row: int) -> Value:
        if labels[row] < 0:
            raise Unreadable("is empty, expected a label")
        return int(labels[row])

    modality = pb.Modality(name="label", type="label", datatype="INT64", classes=classes)
    return labels, PlainColumn(modality, label, lambda row: f"row {row + 1}, {column}")


def _check_splits(cells: Cells, divided: Mapping[str, object]) -> None:
    if not divided or len(divided) > 16 or any(len(name) > 64 for name in divided):
        raise InvalidInput(f"{cells.path} names {len(divided)} splits, expected 1 to 16 of at most 64 characters")


def _identity(cells: Cells, roles: _Roles, row: int) -> str:
    """Its files: a picture with several captions must not be in both splits."""
    files = [roles.columns[name] for name, kind in roles.types.items() if kind in ("image", "audio")]
    return "\0".join(cells.text(column, row) for column in files or roles.columns.values())


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _is_whole(text: str) -> bool:
    return text.lstrip("+-").isdigit() and -(2**63) <= int(text) < 2**63
