"""A piece of a checkpoint as a file: safetensors, written and read tensor by tensor, so that nothing lies in memory
twice.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import torch

from encephalon.core.errors import Corrupt, FailedPrecondition

__all__ = ["PieceFile", "Written", "chunks_of", "write"]

TYPES: Final = {"F32": torch.float32, "F64": torch.float64, "I64": torch.int64, "BOOL": torch.bool}
CODES: Final = {dtype: code for code, dtype in TYPES.items()}
CHUNK_BYTES: Final = 1 << 20
MAX_HEADER: Final = 256 << 20
"""Bytes. A slice takes about 100 for each of its tensors."""


class Written(NamedTuple):
    sha256: str
    size: int


class Place(NamedTuple):
    """Where in the file a tensor lies."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


def chunks_of(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, object]) -> Iterator[bytes | memoryview]:
    """The file's bytes. The tensors are contiguous, and must not change meanwhile."""
    header: dict[str, object] = {"__metadata__": {name: json.dumps(value) for name, value in metadata.items()}}
    at = 0
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.nbytes],
        }
        at += tensor.nbytes
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    yield len(head).to_bytes(8, "little") + head
    for tensor in tensors.values():
        data = _bytes(tensor)
        for start in range(0, len(data), CHUNK_BYTES):
            yield data[start : start + CHUNK_BYTES]


def write(path: Path, chunks: Iterable[bytes | memoryview]) -> Written:
    """A new file, safe on disk when it returns. FailedPrecondition when it cannot be written; then there is none."""
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("xb") as file:
            for chunk in chunks:
                digest.update(chunk)
                size += file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise FailedPrecondition(
            f"a piece of the checkpoint cannot be written to {path.parent}: {error.strerror}; it has more than {size} "
            "bytes, free some space there or choose another --folder",
            path=path,
        ) from error
    return Written(digest.hexdigest(), size)


class PieceFile(AbstractContextManager["PieceFile"]):
    """A piece that lies on the local disk, opened. Corrupt for one that is none of ours."""

    def __init__(self, path: Path, key: str) -> None:
        self.key = key
        self._file: BinaryIO = path.open("rb")
        try:
            self._places, self.metadata = self._header(path.stat().st_size)
        except BaseException:
            self._file.close()
            raise

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._places)

    def size(self, name: str) -> int:
        """Elements of a tensor. Corrupt when it is not there."""
        return int(torch.Size(self._place(name).shape).numel())

    def read(self, name: str) -> torch.Tensor:
        """A tensor, in its shape."""
        place = self._place(name)
        tensor = torch.empty(place.shape, dtype=place.dtype)
        self._fill(tensor, place.start, name)
        return tensor

    def read_into(self, name: str, into: torch.Tensor, start: int) -> None:
        """Fills a contiguous one-dimensional tensor with elements from `start` on. Corrupt when there are too few."""
        place = self._place(name)
        first = place.start + start * into.element_size()
        if place.dtype != into.dtype or first + into.nbytes > place.stop:
            raise self._damaged(f"'{name}' is {place.dtype} {list(place.shape)}, too little for what should be in it")
        self._fill(into, first, name)

    def _place(self, name: str) -> Place:
        if (place := self._places.get(name)) is None:
            raise self._damaged(f"'{name}' is missing")
        return place

    def _fill(self, tensor: torch.Tensor, start: int, name: str) -> None:
        self._file.seek(start)
        data = _bytes(tensor)
        if len(data) and self._file.readinto(data) != len(data):  # type: ignore[attr-defined]
            raise self._damaged(f"it ends within '{name}'")

    def _header(self, size: int) -> tuple[dict[str, Place], dict[str, Any]]:
        length = int.from_bytes(self._file.read(8), "little")
        if not 2 <= length <= min(MAX_HEADER, size - 8):
            raise self._damaged(f"its header would have {length} of {size} bytes")
        try:
            header = json.loads(self._file.read(length))
            metadata = {name: json.loads(value) for name, value in header.pop("__metadata__").items()}
            places = {str(name): _place(entry, 8 + length) for name, entry in header.items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise self._damaged(f"its header cannot be read ({error})") from error
        if any(not 8 + length <= place.start <= place.stop <= size for place in places.values()):
            raise self._damaged("its header names bytes that are not there")
        return places, metadata

    def _damaged(self, why: str) -> Corrupt:
        return Corrupt(f"the piece '{self.key}' of the checkpoint is damaged: {why}; resume from another", key=self.key)


def _place(entry: dict[str, Any], base: int) -> Place:
    shape = tuple(int(length) for length in entry["shape"])
    dtype = TYPES[entry["dtype"]]
    start, stop = (base + int(offset) for offset in entry["data_offsets"])
    if min(shape, default=0) < 0 or torch.Size(shape).numel() * dtype.itemsize != stop - start:
        raise ValueError(f"{stop - start} bytes for {dtype} {list(shape)}")
    return Place(dtype, shape, start, stop)


def _bytes(tensor: torch.Tensor) -> memoryview:
    """Of a contiguous tensor, without a copy; writable."""
    if tensor.numel() == 0:
        return memoryview(bytearray())
    return tensor.detach().reshape(-1).view(torch.uint8).numpy().data
