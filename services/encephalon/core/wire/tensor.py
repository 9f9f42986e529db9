"""A named tensor: a numpy array and its bytes on the wire, each made from the other only when asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from encephalon.core.errors import InvalidInput
from encephalon.core.wire import elements
from encephalon.core.wire.datatypes import DTYPES, ITEM_SIZES, datatype_of, dtype_of, unknown

__all__ = ["MAX_RANK", "Tensor"]

MAX_RANK = 8
# What numpy can address; a larger product of dimensions is refused even when one of them is 0.
MAX_BYTES = 2**63 - 1

Array = np.ndarray[Any, np.dtype[Any]]


class Tensor:
    """Immutable: `name`, `datatype` ("FP32", ...), `shape` (with the batch first), and the elements in row-major order.

    Made by `Tensor.of` from an array or by `Tensor.raw` from bytes. Neither copies where it can share, so what was
    given must not be written to afterwards.
    """

    __slots__ = ("_array", "_data", "datatype", "name", "shape")

    def __init__(
        self, name: str, datatype: str, shape: tuple[int, ...], data: memoryview | None, array: Array | None = None
    ) -> None:
        """Trusts what it gets: one of `data` (flat bytes) and `array` must be there and fit."""
        self.name: Final = name
        self.datatype: Final = datatype
        self.shape: Final = shape
        self._data = data
        self._array = array

    @classmethod
    def of(cls, name: str, array: np.ndarray[Any, Any], datatype: str | None = None) -> Tensor:
        """From an array of any byte order and layout; BYTES from arrays of objects (bytes or str), S and U.

        BF16 is `ml_dtypes.bfloat16`. InvalidInput for a dtype that the protocol lacks, for one other than `datatype`,
        and for more than 8 dimensions.
        """
        found = datatype_of(array.dtype)
        if datatype is not None and found != datatype:
            dtype_of(datatype)
            raise InvalidInput(
                f"tensor '{name}' came as {found}, expected {datatype}; convert it before sending",
                tensor=name,
                got=found,
                expected=datatype,
            )
        shape = tuple(array.shape)
        check_shape(name, found, shape)
        if found == "BYTES":
            return cls(name, found, shape, memoryview(elements.join(name, array.ravel().tolist())))
        # ascontiguousarray would turn a scalar into one dimension.
        return cls(name, found, shape, None, read_only(np.asarray(array, dtype=DTYPES[found], order="C")))

    @classmethod
    def plain(cls, name: str, datatype: str, array: np.ndarray[Any, Any]) -> Tensor | None:
        """As `of`, in a fraction of its time, from an array that need be neither converted nor checked; else None."""
        if array.dtype is not DTYPES[datatype] or datatype == "BYTES" or type(array) is not np.ndarray:
            return None
        shape, flags = array.shape, array.flags
        if not flags.c_contiguous or len(shape) > MAX_RANK:
            return None
        return cls(name, datatype, shape, None, read_only(array) if flags.writeable else array)

    @classmethod
    def raw(cls, name: str, datatype: str, shape: Sequence[int], data: bytes | bytearray | memoryview) -> Tensor:
        """From little-endian bytes, which are checked: InvalidInput says what came and what was expected."""
        whole = tuple(int(size) for size in shape)
        count, nbytes = check_shape(name, datatype, whole)
        view = memoryview(data).toreadonly()
        if view.format != "B" or view.ndim != 1:
            view = view.cast("B")
        check_bytes(name, datatype, whole, count, nbytes, view)
        return cls(name, datatype, whole, view)

    @property
    def array(self) -> Array:
        """Read-only. Shares the bytes (perhaps unaligned), except for BYTES, which is an object array of bytes."""
        if self._array is None:
            self._array = view(self)
        return self._array

    @property
    def data(self) -> memoryview:
        """The raw little-endian bytes, read-only and flat; shared with the array."""
        if self._data is None:
            flat = self.array.reshape(-1).view(np.uint8)
            self._data = flat.data if flat.size else memoryview(b"")
        return self._data

    @property
    def nbytes(self) -> int:
        """Bytes on the wire."""
        return len(self._data) if self._data is not None else self.array.nbytes

    def renamed(self, name: str) -> Tensor:
        """The same elements under another name; nothing is copied."""
        return Tensor(name, self.datatype, self.shape, self._data, self._array)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tensor):
            return NotImplemented
        mine, theirs = (self.name, self.datatype, self.shape), (other.name, other.datatype, other.shape)
        return mine == theirs and self.data == other.data

    __hash__ = None  # type: ignore[assignment]  # equal by content, which is too much to hash

    def __repr__(self) -> str:
        return f"Tensor('{self.name}', {self.datatype} {list(self.shape)})"


def read_only(array: Array) -> Array:
    """The same elements; what gave the array may go on writing to its own."""
    if not array.flags.writeable:
        return array
    seen = array.view()
    seen.setflags(write=False)
    return seen


def view(tensor: Tensor) -> Array:
    if tensor.datatype == "BYTES":
        made = elements.array(tensor.name, tensor.data, tensor.shape, math.prod(tensor.shape))
    else:
        made = np.ndarray(tensor.shape, DTYPES[tensor.datatype], tensor.data)
    made.setflags(write=False)
    return made


def check_shape(name: str, datatype: str, shape: Sequence[int]) -> tuple[int, int]:
    """The number of elements and of bytes (-1 for BYTES, which differ); InvalidInput for what no tensor can be."""
    size = ITEM_SIZES.get(datatype)
    if size is None:
        error = unknown(datatype)
        raise InvalidInput(f"tensor '{name}': {error.message}", tensor=name, **error.details)
    if len(shape) > MAX_RANK:
        raise InvalidInput(
            f"tensor '{name}' came with {len(shape)} dimensions, expected at most {MAX_RANK}",
            tensor=name,
            got=len(shape),
            expected=MAX_RANK,
        )
    count, bound = 1, size or 8
    for dimension in shape:
        if dimension < 0:
            raise InvalidInput(
                f"tensor '{name}' came with shape {list(shape)}, expected no negative dimension",
                tensor=name,
                got=list(shape),
            )
        count *= dimension
        bound *= dimension or 1
    if bound > MAX_BYTES:
        raise InvalidInput(
            f"tensor '{name}' came with shape {list(shape)}, which is more than {MAX_BYTES} bytes",
            tensor=name,
            got=list(shape),
        )
    return count, count * size if size else -1


def check_bytes(name: str, datatype: str, shape: Sequence[int], count: int, nbytes: int, data: memoryview) -> None:
    """InvalidInput unless the bytes are exactly those of `count` elements."""
    if nbytes < 0:
        elements.split(name, data, count)
        return
    if len(data) != nbytes:
        raise InvalidInput(
            f"tensor '{name}' came with {len(data)} bytes, expected {nbytes} for {datatype} {list(shape)}",
            tensor=name,
            got=len(data),
            expected=nbytes,
        )
    if datatype == "BOOL" and nbytes and (highest := int(np.frombuffer(data, np.uint8).max())) > 1:
        raise InvalidInput(f"tensor '{name}' is BOOL and has a byte {highest}, expected 0 or 1", tensor=name)
