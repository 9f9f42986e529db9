"""A modality as a column of an Arrow file: fixed shapes lie one behind the other, other shapes each with its own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import Corrupt, InvalidInput
from encephalon.core.wire import dtype_of
from encephalon.library.datasets.arrow import arrow

__all__ = ["Column", "Fixed", "Value", "Values", "column_of", "schema_of"]

MOST_NUMBERS: Final = 2**31 - 1
"""In one value: what Arrow counts."""

Value = NDArray[Any] | int | float | bool | str | bytes
"""What one sample holds of one modality; arrays are read-only."""

Values = NDArray[Any] | Sequence[NDArray[Any]] | Sequence[str] | Sequence[bytes]
"""What several samples hold of one modality, in order."""


class Column(Protocol):
    """Turns the values of a modality into an Arrow array and back."""

    name: str
    type: Any

    def encode(self, values: Values) -> Any:
        """InvalidInput when a value has another shape or cannot be held by the datatype."""
        ...

    def decode(self, array: Any) -> Values:
        """Views of the array's memory, which live as long as they are held."""
        ...

    def size(self, values: Values) -> int:
        """Bytes, about."""
        ...


def column_of(modality: pb.Modality) -> Column:
    if modality.datatype == "BYTES":
        if modality.shape:
            raise InvalidInput(f"modality '{modality.name}' has BYTES of shape {list(modality.shape)}, expected []")
        return _Text(modality)
    if any(size == 0 or size < -1 for size in modality.shape) or abs(math.prod(modality.shape)) > MOST_NUMBERS:
        raise InvalidInput(
            f"modality '{modality.name}' has shape {list(modality.shape)}; sizes are 1 or more, or -1 for any, and "
            f"{MOST_NUMBERS} numbers at most"
        )
    return _Ragged(modality) if -1 in modality.shape else Fixed(modality)


def schema_of(columns: Iterable[Column]) -> Any:
    pa = arrow()
    return pa.schema([pa.field(column.name, column.type, nullable=False) for column in columns])


class Fixed:
    """Numbers of one shape; [] are scalars, which any Arrow program reads as a plain column."""

    def __init__(self, modality: pb.Modality) -> None:
        self.name = modality.name
        self.shape = tuple(modality.shape)
        self.dtype = dtype_of(modality.datatype)
        self._stored = _stored(self.dtype)
        number = arrow().from_numpy_dtype(self._stored)
        self.type = arrow().fixed_shape_tensor(number, self.shape) if self.shape else number

    def encode(self, values: Values) -> Any:
        rows = np.ascontiguousarray(values)
        if rows.shape[1:] != self.shape or not np.can_cast(rows.dtype, self.dtype, "safe"):
            raise _unlike(self.name, rows, self.dtype, self.shape)
        rows = rows.astype(self.dtype, copy=False).view(self._stored)
        flat = arrow().array(rows.reshape(-1))
        if not self.shape:
            return flat
        lists = arrow().FixedSizeListArray.from_arrays(flat, type=self.type.storage_type)
        return arrow().ExtensionArray.from_storage(self.type, lists)

    def decode(self, array: Any) -> NDArray[Any]:
        numbers = array.storage.flatten() if self.shape else array
        flat: NDArray[Any] = numbers.to_numpy(zero_copy_only=True)
        return flat.view(self.dtype).reshape(-1, *self.shape)

    def size(self, values: Values) -> int:
        return len(values) * int(np.prod(self.shape)) * self.dtype.itemsize


class _Ragged:
    """Numbers of several shapes: the bytes of each, and its shape beside them."""

    def __init__(self, modality: pb.Modality) -> None:
        pa = arrow()
        self.name = modality.name
        self.shape = tuple(modality.shape)
        self.dtype = dtype_of(modality.datatype)
        self._sizes = pa.list_(pa.int32(), len(self.shape))
        data, shape = pa.field("data", pa.binary(), nullable=False), pa.field("shape", self._sizes, nullable=False)
        self.type = pa.struct([data, shape])

    def encode(self, values: Values) -> Any:
        pa = arrow()
        rows = [np.ascontiguousarray(value) for value in values]
        for row in rows:
            fits = row.ndim == len(self.shape) and all(w in (-1, g) for g, w in zip(row.shape, self.shape, strict=True))
            if not fits or not np.can_cast(row.dtype, self.dtype, "safe"):
                raise _unlike(self.name, row[None], self.dtype, self.shape)
        data = pa.array([row.astype(self.dtype, copy=False).tobytes() for row in rows], pa.binary())
        sizes = np.array([row.shape for row in rows], np.int32).reshape(-1)
        shapes = pa.FixedSizeListArray.from_arrays(pa.array(sizes), type=self._sizes)
        return pa.StructArray.from_arrays([data, shapes], fields=list(self.type))

    def decode(self, array: Any) -> Values:
        data, shapes = array.field(0), array.field(1)
        sizes = shapes.flatten().to_numpy(zero_copy_only=True).reshape(-1, len(self.shape))
        _, offsets, content = data.buffers()
        ends = np.frombuffer(offsets, np.int32, len(array) + 1)
        numbers = sizes.prod(axis=1, dtype=np.float64)  # exact where it can fit, and does not wrap around
        # Nulls would be left out by `flatten`, and numpy takes a negative count for "all".
        if len(sizes) != len(array) or (sizes < 0).any() or (np.diff(ends) != numbers * self.dtype.itemsize).any():
            raise Corrupt(f"a shard's column '{self.name}' has shapes that do not fit its bytes")
        return _Views(content, ends, sizes, self.dtype)

    def size(self, values: Values) -> int:
        return sum(np.asarray(value).size * self.dtype.itemsize for value in values)


class _Views(Sequence[NDArray[Any]]):
    """The arrays of a ragged column, each made when it is asked for."""

    def __init__(self, content: Any, ends: NDArray[np.int32], sizes: NDArray[np.int32], dtype: np.dtype[Any]) -> None:
        self._content, self._ends, self._sizes, self._dtype = content, ends, sizes, dtype

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, row: Any) -> Any:
        shape = self._sizes[row]
        if self._content is None:
            return np.empty(shape, self._dtype)
        flat = np.frombuffer(self._content, self._dtype, int(shape.prod()), int(self._ends[row]))
        return flat.reshape(shape)


class _Text:
    """Text for a modality of type "text", and bytes for any other."""

    def __init__(self, modality: pb.Modality) -> None:
        self.name = modality.name
        self.type = arrow().string() if modality.type == "text" else arrow().binary()

    def encode(self, values: Values) -> Any:
        try:
            array = arrow().array([str(value) if isinstance(value, np.str_) else value for value in values], self.type)
        except (arrow().ArrowInvalid, arrow().ArrowTypeError, UnicodeError) as error:
            raise InvalidInput(f"modality '{self.name}' takes {self.type} only: {error}") from None
        if array.null_count:
            raise InvalidInput(f"modality '{self.name}' has {array.null_count} values that are None")
        return array

    def decode(self, array: Any) -> Values:
        values: list[str] = array.to_pylist()
        return values

    def size(self, values: Values) -> int:
        return sum(len(value) for value in values)


def _stored(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What Arrow keeps: it packs booleans into bits, and knows no bfloat16."""
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    return np.dtype(np.uint16) if dtype.kind == "V" else dtype


def _unlike(name: str, rows: NDArray[Any], dtype: np.dtype[Any], shape: tuple[int, ...]) -> InvalidInput:
    return InvalidInput(
        f"modality '{name}' came as {rows.dtype} {list(rows.shape[1:])}, expected {dtype} {list(shape)} (-1 is any "
        "size)",
        modality=name,
    )
