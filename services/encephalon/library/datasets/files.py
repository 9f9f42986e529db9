"""Samples whose modalities lie in files: all are examined first, so that shapes are known and broken ones are named
before anything is decoded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import InvalidInput
from encephalon.library.avmnist.progress import Progress
from encephalon.library.datasets.columns import Value
from encephalon.library.datasets.media import Media, Unreadable
from encephalon.library.datasets.options import DataSetOptions
from encephalon.library.datasets.order import permutation
from encephalon.library.datasets.pictures import PICTURES, Pictures
from encephalon.library.datasets.shards import BATCH_ROWS
from encephalon.library.datasets.sounds import SOUNDS, Sounds
from encephalon.library.datasets.source import Batch, Broken, Part

__all__ = ["FileColumn", "Listing", "PlainColumn", "file_parts", "media_for", "media_type"]

BATCH_BYTES: Final = 8 << 20
EVERY: Final = 1024
"""Files examined between two calls of the progress."""


@dataclass(slots=True)
class FileColumn:
    """A modality that lies in files."""

    name: str
    media: Media
    path: Callable[[int], Path]
    """Of a row. Raises `Unreadable`."""
    named: Callable[[int], str]
    """How a message names the file of a row."""


@dataclass(slots=True)
class PlainColumn:
    """A modality whose values are in the listing itself."""

    modality: pb.Modality
    value: Callable[[int], Value]
    """Of a row. Raises `Unreadable`."""
    named: Callable[[int], str]


@dataclass(slots=True)
class Listing:
    """The samples of a source before they are read."""

    count: int
    files: Sequence[FileColumn]
    plain: Sequence[PlainColumn] = ()
    splits: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    """Name to rows."""
    unfit: Mapping[int, str] = field(default_factory=dict)
    """Rows that are broken whatever their files are, and why."""


def media_type(name: str) -> str | None:
    """ "image" or "audio", as the file's name ends; None for another end."""
    end = os.path.splitext(name)[1].lower()
    return "image" if end in PICTURES else "audio" if end in SOUNDS else None


def media_for(kind: str, options: DataSetOptions) -> Media:
    """`kind` is "image" or "audio"."""
    if kind == "image":
        return Pictures(options.size, options.colour)
    return Sounds(options.sample_rate, options.seconds)


def file_parts(
    listing: Listing, options: DataSetOptions, broken: Broken, progress: Progress
) -> tuple[list[pb.Modality], list[Part]]:
    """Modalities and splits of a listing, with every file examined. What cannot be read is in `broken`, at once or
    when it is decoded. Raises `InvalidInput` when nothing can be read, or not all of it at once."""
    good = np.ones(listing.count, bool)
    for row, why in listing.unfit.items():
        broken.add(row, why)
        good[row] = False
    facts = {column.name: _examined(listing, column, good, broken, progress) for column in listing.files}
    for plain in listing.plain:
        _check_plain(listing, plain, good, broken)
    broken.check(listing.count)
    if not good.any():
        raise InvalidInput(f"none of the {listing.count} samples can be read: {'; '.join(broken.listed[:3])}")
    described = [column.media.settle(column.name, facts[column.name][good]) for column in listing.files]
    weights = sum((column.media.bytes_of(facts[column.name]) for column in listing.files), np.zeros(len(good), int))
    decoding = _Decoding(listing, broken, weights)
    parts = []
    for at, (name, rows) in enumerate(listing.splits.items()):
        readable = rows[good[rows]]
        laid = readable[permutation(len(readable), options.seed, at)] if options.shuffle else readable
        parts.append(Part(name, len(laid), partial(decoding.batches, laid)))
    return [*described, *(plain.modality for plain in listing.plain)], parts


def _examined(
    listing: Listing, column: FileColumn, good: NDArray[np.bool_], broken: Broken, progress: Progress
) -> NDArray[np.int64]:
    """Facts [N, 3]; rows that cannot be read are marked in `good` and listed."""
    facts = np.zeros((listing.count, 3), np.int64)

    def one(row: int) -> None:
        try:
            facts[row] = column.media.examine(_existing(column.path(row)))
        except Unreadable as error:
            if good[row]:
                broken.add(row, f"{column.named(row)} {error}")
            good[row] = False

    with _pool() as pool:
        for start in range(0, listing.count, EVERY):
            progress(f"examining {column.name}", start, listing.count)
            list(pool.map(one, range(start, min(start + EVERY, listing.count))))
    progress(f"examining {column.name}", listing.count, listing.count)
    return facts


def _existing(path: Path) -> Path:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise Unreadable("is missing") from None
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from None
    if not path.is_file():
        raise Unreadable("is no file")
    if not size:
        raise Unreadable("is empty")
    return path


def _check_plain(listing: Listing, column: PlainColumn, good: NDArray[np.bool_], broken: Broken) -> None:
    for row in np.flatnonzero(good):
        try:
            column.value(int(row))
        except Unreadable as error:
            broken.add(int(row), f"{column.named(int(row))} {error}")
            good[row] = False


class _Decoding:
    """Reads the rows of a split in their order, several files at once."""

    def __init__(self, listing: Listing, broken: Broken, weights: NDArray[np.int64]) -> None:
        self._listing, self._broken, self._weights = listing, broken, weights

    def batches(self, rows: NDArray[np.int64]) -> Iterator[Batch]:
        names = [column.name for column in self._listing.files] + [one.modality.name for one in self._listing.plain]
        with _pool() as pool:
            for chunk in self._chunks(rows):
                samples = [sample for sample in pool.map(self._sample, chunk.tolist()) if sample is not None]
                yield {name: [sample[at] for sample in samples] for at, name in enumerate(names)}

    def _sample(self, row: int) -> list[Any] | None:
        values: list[Any] = []
        for column in self._listing.files:
            try:
                values.append(column.media.decode(column.path(row)))
            except Unreadable as error:
                self._broken.add(row, f"{column.named(row)} {error}")
                return None
        return values + [plain.value(row) for plain in self._listing.plain]

    def _chunks(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        start, total = 0, 0
        for at, row in enumerate(rows):
            if at > start and (at - start >= BATCH_ROWS or total + self._weights[row] > BATCH_BYTES):
                yield rows[start:at]
                start, total = at, 0
            total += int(self._weights[row])
        if start < len(rows):
            yield rows[start:]


def _pool() -> ThreadPoolExecutor:
    """Decoders let go of the interpreter while they work."""
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="encephalon-decode")
