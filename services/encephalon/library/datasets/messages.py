"""The messages of an Arrow file, as far as they tell whether it unfolds when it is read.

Shards are never compressed: they are mapped as they are. A compressed one comes from a stranger, and a few kilobytes of
it may take any memory as soon as pyarrow opens them; so this is asked before. Walks the flatbuffers of Arrow's
`File.fbs` and `Message.fbs`.
"""

from __future__ import annotations

import struct
from typing import Final

__all__ = ["unfolds"]

MAGIC_BYTES: Final = 6
BLOCK: Final = struct.Struct("<qi4xq")
"""Where a message lies, and the sizes of its two parts."""

CONTINUATION: Final = -1
DICTIONARIES, BATCHES = 2, 3  # of Footer
HEADER: Final = 2  # of Message
COMPRESSION: Final = 3  # of RecordBatch


def unfolds(data: memoryview) -> bool:
    """Whether anything in the file is compressed or stands for something else. ValueError for what is no Arrow file."""
    try:
        end = len(data) - MAGIC_BYTES - 4
        footer = _followed(data, end - _int(data, end))
        return bool(_blocks(data, footer, DICTIONARIES)) or any(
            _compressed(data, at) for at in _blocks(data, footer, BATCHES)
        )
    except struct.error as error:
        raise ValueError(f"its messages lead out of it ({error})") from None


def _compressed(data: memoryview, at: int) -> bool:
    if _int(data, at) != CONTINUATION:
        raise ValueError("its messages are of an old kind")
    header = _field(data, _followed(data, at + 8), HEADER)
    return bool(header) and bool(_field(data, _followed(data, header), COMPRESSION))


def _blocks(data: memoryview, footer: int, number: int) -> list[int]:
    """The places of messages."""
    field = _field(data, footer, number)
    if not field:
        return []
    vector = _followed(data, field)
    first, count = vector + 4, _int(data, vector)
    return [BLOCK.unpack_from(data, first + each * BLOCK.size)[0] for each in range(count)]


def _field(data: memoryview, table: int, number: int) -> int:
    """Where a table has a field; 0 when it has none."""
    sizes = table - _int(data, table)
    place = 4 + 2 * number
    if place >= _short(data, sizes):
        return 0
    offset = _short(data, sizes + place)
    return table + offset if offset else 0


def _followed(data: memoryview, at: int) -> int:
    return at + _int(data, at)


def _int(data: memoryview, at: int) -> int:
    found: int = struct.unpack_from("<i", data, at)[0]
    return found


def _short(data: memoryview, at: int) -> int:
    found: int = struct.unpack_from("<H", data, at)[0]
    return found
