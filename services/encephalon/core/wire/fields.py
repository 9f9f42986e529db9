"""Protobuf's outermost layer: varints, tags and the top-level fields of a message.

https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from functools import lru_cache

from encephalon.core.errors import InvalidInput

__all__ = ["head", "scan", "text", "varint"]

LENGTH_DELIMITED = 2
FIXED_SIZES = {1: 8, 5: 4}
MAX_FIELD_NUMBER = 2**29 - 1


def varint(value: int) -> bytes:
    pieces = bytearray()
    while value > 0x7F:
        pieces.append(value & 0x7F | 0x80)
        value >>= 7
    pieces.append(value)
    return bytes(pieces)


@lru_cache(maxsize=4096)
def head(number: int, length: int) -> bytes:
    """What stands before the payload of a length-delimited field."""
    return varint(number << 3 | LENGTH_DELIMITED) + varint(length)


def text(number: int, value: str) -> bytes:
    """A string field; nothing when it is empty, as proto3 wants."""
    if not value:
        return b""
    try:
        payload = value.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"{value!r} cannot be written as UTF-8; send a valid name") from None
    return head(number, len(payload)) + payload


def scan(message: bytes, start: int, end: int, known: int) -> list[tuple[int, int, int]]:
    """The length-delimited fields between `start` and `end`, in order, as (number, start of payload, end of payload).

    Fields 1 to `known` must be length-delimited; others of any type are passed over. InvalidInput if it is no message.
    """
    found: list[tuple[int, int, int]] = []
    position = start
    try:
        while position < end:
            tag = message[position]
            position += 1
            if tag > 0x7F:
                tag, position = read(message, position - 1, 5)
            number = tag >> 3
            if not 0 < number <= MAX_FIELD_NUMBER:
                raise malformed(f"field number {number} at byte {position} is out of range")
            if tag & 7 == LENGTH_DELIMITED:
                length = message[position]
                position += 1
                if length > 0x7F:
                    length, position = read(message, position - 1, 5)
                stop = position + length
                if stop > end:
                    raise malformed(f"field {number} has {length} bytes where only {max(end - position, 0)} are left")
                found.append((number, position, stop))
                position = stop
            else:
                position = skip(message, position, number, tag & 7, known)
    except IndexError:
        position = end + 1
    if position > end:
        raise malformed("it ends in the middle of a field")
    return found


def read(message: bytes, position: int, limit: int) -> tuple[int, int]:
    """The varint at `position`, of at most `limit` bytes, and what follows it."""
    value = 0
    for index in range(limit):
        byte = message[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise malformed(f"a number at byte {position} does not end")


def skip(message: bytes, position: int, number: int, kind: int, known: int) -> int:
    if number <= known:
        raise malformed(f"field {number} has wire type {kind}, expected {LENGTH_DELIMITED}")
    if kind == 0:
        return read(message, position, 10)[1]
    if kind in FIXED_SIZES:
        return position + FIXED_SIZES[kind]
    raise malformed(f"field {number} has wire type {kind}, which the protocol does not use")


def malformed(what: str) -> InvalidInput:
    return InvalidInput(f"the message is not one of the Open Inference Protocol: {what}")
