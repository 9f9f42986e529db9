"""Data sets from arrays that are in memory already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import InvalidInput
from encephalon.core.wire import datatype_of
from encephalon.library.datasets.columns import Values
from encephalon.library.datasets.shards import BATCH_ROWS
from encephalon.library.datasets.source import Batch, Part, Source

__all__ = ["Rows", "array_source", "modality_like"]

Rows = slice | NDArray[np.integer[Any]] | Sequence[int]
"""Which rows of the columns belong to a split."""

BATCH_BYTES = 8 << 20

MOST_CLASSES = 10_000
"""That are named by their numbers; a record has no room for many more."""


def array_source(
    columns: Mapping[str, Values],
    splits: Mapping[str, Rows],
    modalities: Sequence[pb.Modality] | None = None,
    *,
    recipe: str = "arrays",
    **facts: Any,
) -> Source:
    """A source of `columns`, which all have the same length; a column may be memory-mapped.

    `modalities` describes the columns; None: told by their dtypes and shapes, and integers named "label" are classes.
    `facts` are further fields of `Source`. Raises `InvalidInput` when they do not fit each other.
    """
    lengths = {name: len(values) for name, values in columns.items()}
    if not columns or len(set(lengths.values())) != 1:
        raise InvalidInput(f"the columns of a data set have lengths {lengths}, expected one length for all")
    if not splits:
        raise InvalidInput('a data set has at least one split, as in {"train": slice(None)}; none is given')
    described = modalities if modalities is not None else [modality_like(name, columns[name]) for name in columns]
    if {one.name for one in described} != set(columns):
        raise InvalidInput(f"modalities describe {sorted(one.name for one in described)}, not {sorted(columns)}")
    count = next(iter(lengths.values()))
    rows = {name: _rows(name, chosen, count) for name, chosen in splits.items()}
    for one in described:
        if one.type == "label":
            _check_labels(one, columns[one.name])
    parts = [Part(name, len(each), partial(_batches, columns, each)) for name, each in rows.items()]
    return Source(recipe=recipe, modalities=described, parts=parts, **facts)


def modality_like(name: str, values: Values) -> pb.Modality:
    """The modality of a column, as its first values show it."""
    if not isinstance(values, np.ndarray) or values.dtype.kind in "SUO":
        first = values[0] if len(values) else ""
        if isinstance(first, str | bytes):
            return pb.Modality(name=name, type="text" if isinstance(first, str) else "tensor", datatype="BYTES")
        if np.ndim(first) == 0 and (numbers := np.asarray(values)).dtype.kind in "biuf":
            return modality_like(name, numbers)
        shape = [-1] * np.asarray(first).ndim
        return pb.Modality(name=name, type="tensor", datatype=datatype_of(np.asarray(first).dtype), shape=shape)
    if name == "label" and values.ndim == 1 and values.dtype.kind in "iu":
        most = int(values.max(initial=0))
        if most >= MOST_CLASSES:
            raise InvalidInput(
                f"'{name}' numbers classes up to {most}, expected less than {MOST_CLASSES}; give modalities"
            )
        classes = [str(number) for number in range(most + 1)]
        return pb.Modality(name=name, type="label", datatype="INT64", classes=classes)
    return pb.Modality(name=name, type="tensor", datatype=datatype_of(values.dtype), shape=values.shape[1:])


def _batches(columns: Mapping[str, Values], rows: NDArray[np.int64]) -> Iterator[Batch]:
    step = min(BATCH_ROWS, max(1, BATCH_BYTES // max(1, _row_bytes(columns))))
    for start in range(0, len(rows), step):
        chosen = rows[start : start + step]
        yield {name: _taken(values, chosen) for name, values in columns.items()}


def _taken(values: Values, rows: NDArray[np.int64]) -> Values:
    if isinstance(values, np.ndarray):
        return values[rows] if values.dtype.kind not in "SUO" else values[rows].tolist()
    return [values[row] for row in rows]


def _row_bytes(columns: Mapping[str, Values]) -> int:
    """On average."""
    return sum(_bytes(values) // len(values) for values in columns.values() if len(values))


def _bytes(values: Values) -> int:
    if isinstance(values, np.ndarray):
        return values.nbytes
    return sum(len(value) if isinstance(value, str | bytes) else np.asarray(value).nbytes for value in values)


def _rows(name: str, chosen: Rows, count: int) -> NDArray[np.int64]:
    if isinstance(chosen, slice):
        return np.arange(count, dtype=np.int64)[chosen]
    given = np.asarray(chosen)
    if given.dtype.kind not in "iu" and given.size:
        raise InvalidInput(
            f"the split '{name}' is given as {given.dtype}; give row numbers (numpy.flatnonzero of a mask)"
        )
    rows = given.astype(np.int64)
    if rows.ndim != 1 or (rows.size and (rows.min() < 0 or rows.max() >= count)):
        raise InvalidInput(f"the split '{name}' names rows that are not there; the columns have {count} rows")
    return rows


def _check_labels(modality: pb.Modality, values: Values) -> None:
    labels = np.asarray(values)
    if labels.size and (int(labels.min()) < 0 or int(labels.max()) >= len(modality.classes)):
        raise InvalidInput(
            f"'{modality.name}' has labels {labels.min()} to {labels.max()}, but {len(modality.classes)} classes are "
            "named; labels count from 0"
        )
