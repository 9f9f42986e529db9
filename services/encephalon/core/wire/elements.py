"""BYTES tensors: each element as a 4-byte little-endian length and its bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import numpy as np

from encephalon.core.errors import InvalidInput

__all__ = ["join", "split"]

LENGTH = struct.Struct("<I")


def join(name: str, elements: Iterable[object]) -> bytes:
    """Elements (bytes or str, which become UTF-8) as they travel; InvalidInput for anything else."""
    pieces: list[bytes] = []
    for element in elements:
        if isinstance(element, str):
            element = element.encode("utf-8", "surrogateescape")
        if not isinstance(element, bytes):
            raise InvalidInput(
                f"tensor '{name}' is BYTES and has an element of type {type(element).__name__}, expected bytes or str",
                tensor=name,
            )
        pieces += (LENGTH.pack(len(element)), element)
    return b"".join(pieces)


def split(name: str, data: memoryview, count: int) -> list[tuple[int, int]]:
    """Where each of `count` elements starts and stops in `data`; InvalidInput unless they fill it exactly."""
    spans: list[tuple[int, int]] = []
    position, end = 0, len(data)
    while position < end:
        if position + 4 > end:
            raise malformed(name, f"ends inside the length of element {len(spans)}")
        (length,) = LENGTH.unpack_from(data, position)
        position += 4
        if position + length > end:
            raise malformed(
                name, f"says that element {len(spans)} has {length} bytes where only {end - position} are left"
            )
        spans.append((position, position + length))
        position += length
    if len(spans) != count:
        raise malformed(name, f"holds {len(spans)} elements, expected {count} by its shape")
    return spans


def array(name: str, data: memoryview, shape: tuple[int, ...], count: int) -> np.ndarray[Any, np.dtype[Any]]:
    """An object array of bytes."""
    result = np.empty(count, dtype=np.object_)
    for index, (start, stop) in enumerate(split(name, data, count)):
        result[index] = bytes(data[start:stop])
    return result.reshape(shape)


def malformed(name: str, what: str) -> InvalidInput:
    return InvalidInput(
        f"tensor '{name}' is BYTES and {what}; expected every element as a 4-byte little-endian length and its bytes",
        tensor=name,
    )
