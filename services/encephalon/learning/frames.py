"""What goes over the data plane: messages of frames, each a header and a piece of one slice.

A frame has at most 1 MiB of payload; small ones share a message, so that a model of many small tensors costs few
messages. Whoever reads frames believes nothing: every field is checked before memory is touched.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from encephalon.core.errors import InvalidInput

__all__ = [
    "ABSENT",
    "HEADER",
    "LAST",
    "MAX_MESSAGE",
    "MAX_PAYLOAD",
    "SHARED",
    "Batch",
    "Codec",
    "Frame",
    "Key",
    "Place",
    "frames",
]

MAGIC: Final = b"ENF1"
"""The digit is the version of the format."""
HEADER: Final = struct.Struct("<4sBBHIIIIQQQQ")
"""Magic, codec, flags, 0, slice, rank, attempt, payload bytes, generation, number, first element, elements."""
PLACE: Final = struct.Struct("<QQQ")
MAX_PAYLOAD: Final = 1 << 20
MAX_MESSAGE: Final = MAX_PAYLOAD + (1 << 12)
"""One full frame with its header, or many small ones."""

LAST: Final = 1
"""Flag: the frame reaches the end of its slice."""
ABSENT: Final = 2
"""Flag: there is no contribution to the slice, and no payload."""
SHARED: Final = 4
"""Flag: the payload is the place in shared memory where the whole slice lies, as float32."""


class Codec(IntEnum):
    """How a payload has the elements."""

    FP32 = 0
    BF16 = 1
    TOPK = 2


@dataclass(frozen=True, slots=True)
class Key:
    """Whose frames these are. Of a push `number` is the update; of a pull the version, and rank and attempt are 0."""

    generation: int
    number: int
    rank: int = 0
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """`offset` bytes into a segment of shared memory. `use` counts up with every push through it, from 1."""

    segment: int
    use: int
    offset: int

    def packed(self) -> bytes:
        return PLACE.pack(self.segment, self.use, self.offset)

    @classmethod
    def of(cls, payload: bytes | memoryview) -> Place:
        return cls(*PLACE.unpack(payload))


@dataclass(frozen=True, slots=True)
class Frame:
    """Elements `offset` to `offset + count` of a slice, counted within the slice."""

    key: Key
    slice: int
    offset: int
    count: int
    codec: Codec
    flags: int
    payload: memoryview


class Batch:
    """Collects frames until a message is full."""

    def __init__(self) -> None:
        self._parts: list[bytes | memoryview] = []
        self._size = 0

    def fits(self, frame: Frame) -> bool:
        return self._size + HEADER.size + len(frame.payload) <= MAX_MESSAGE

    def add(self, frame: Frame) -> None:
        key, length = frame.key, len(frame.payload)
        self._parts.append(
            HEADER.pack(
                *(MAGIC, frame.codec, frame.flags, 0, frame.slice, key.rank, key.attempt, length),
                *(key.generation, key.number, frame.offset, frame.count),
            )
        )
        self._parts.append(frame.payload)
        self._size += HEADER.size + length

    def take(self) -> bytes:
        """The message, and begins the next one."""
        message = b"".join(self._parts)
        self._parts, self._size = [], 0
        return message

    def __len__(self) -> int:
        """Bytes."""
        return self._size


def frames(message: bytes, sizes: Mapping[int, int]) -> Iterator[Frame]:
    """The frames of a message. `sizes`: elements of every slice that may be in it, by number.

    InvalidInput instead of a frame that does not fit.
    """
    if not message:
        raise InvalidInput("an empty message came, expected frames")
    view, at = memoryview(message), 0
    while at < len(view):
        if len(view) - at < HEADER.size:
            raise InvalidInput(f"{len(view) - at} bytes came after the last frame, a header has {HEADER.size}")
        magic, codec, flags, zero, number, rank, attempt, length, generation, update, offset, count = (
            HEADER.unpack_from(view, at)
        )
        if magic != MAGIC or zero:
            raise InvalidInput(f"a frame begins with {magic!r}, expected {MAGIC!r}; both sides must have one version")
        at += HEADER.size
        payload = view[at : at + length]
        if len(payload) != length or length > MAX_PAYLOAD:
            raise InvalidInput(
                f"a frame of slice {number} says {length} bytes and {len(payload)} came; at most {MAX_PAYLOAD} may"
            )
        at += length
        _check(number, offset, count, codec, flags, length, sizes)
        key = Key(generation, update, rank, attempt)
        yield Frame(key, number, offset, count, Codec(codec), flags, payload)


def _check(number: int, offset: int, count: int, codec: int, flags: int, length: int, sizes: Mapping[int, int]) -> None:
    size = sizes.get(number)
    if size is None:
        raise InvalidInput(f"slice {number} came, which was not expected here", slice=number)
    if not 0 < count <= size - offset:
        raise InvalidInput(f"slice {number} came with {count} elements at {offset}, it has {size}", slice=number)
    if bool(flags & LAST) != (offset + count == size):
        raise InvalidInput(f"slice {number} ends at {size}, a frame ends it at {offset + count}", slice=number)
    whole, kind = count == size, flags & ~LAST
    match kind, codec:
        case 0, Codec.FP32:
            right = length == 4 * count
        case 0, Codec.BF16:
            right = length == 2 * count
        case 0, Codec.TOPK:
            right = length % 8 == 0 and length // 8 <= count
        case 2, Codec.FP32:
            right = whole and length == 0
        case 4, Codec.FP32:
            right = whole and length == PLACE.size
        case _:
            raise InvalidInput(f"slice {number} came with codec {codec} and flags {flags}, which is none", slice=number)
    if not right:
        raise InvalidInput(
            f"slice {number} came with {length} bytes for {count} of {size} elements, which codec {codec} and flags "
            f"{flags} do not allow",
            slice=number,
        )
