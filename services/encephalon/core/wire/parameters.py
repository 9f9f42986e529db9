"""Parameters of a message, a tensor or a requested output: names with a bool, a number or a string."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Protocol

from google.protobuf.message import DecodeError

from encephalon.api.inference.v1.inference_pb2 import InferParameter, ModelInferRequest
from encephalon.core.errors import InvalidInput
from encephalon.core.wire.fields import malformed
from encephalon.core.wire.messages import Parameter, Parameters

__all__ = ["NotQuick", "entry", "fill", "quick_entries", "value_of"]

INT64 = range(-(2**63), 2**63)
UINT64 = range(2**64)

# An answer of a brain has a dozen parameters, so the usual ones are written and read without protobuf's objects: an
# entry is a message of the key (field 1) and the value (field 2), which is a message with one of the fields below.
ENTRY, KEY, VALUE = b"\x22", b"\x0a", 0x12
INT, TEXT, DOUBLE = 0x10, 0x1A, 0x21
NUMBER = struct.Struct("<d")
pack_number = NUMBER.pack
# Lengths below it take one byte.
ONE_BYTE = 128


class NotQuick(Exception):
    """The parameter is none of the usual ones; protobuf knows what to do with it."""


def quick_entries(values: Parameters) -> list[bytes]:
    """The map entries, tags and lengths included, in pieces; short names with floats, short strings or small numbers.

    Names and strings come again and again, so what stands before a float, and whole entries of others, are remembered.
    """
    pieces: list[bytes] = []
    for name, value in values.items():
        if type(value) is float:
            pieces += (before_number(name), pack_number(value))
        elif type(value) is str:
            pieces.append(text_entry(name, value))
        elif type(value) is int:
            pieces.append(int_entry(name, value))
        else:
            raise NotQuick
    return pieces


@lru_cache(maxsize=1024)
def before_number(name: str) -> bytes:
    return quick_head(name, bytes([DOUBLE]), NUMBER.size)


@lru_cache(maxsize=1024)
def text_entry(name: str, value: str) -> bytes:
    if not value.isascii() or len(value) >= ONE_BYTE // 4:
        raise NotQuick
    return quick_head(name, bytes([TEXT, len(value)]), len(value)) + value.encode()


@lru_cache(maxsize=1024)
def int_entry(name: str, value: int) -> bytes:
    if not 0 <= value < ONE_BYTE:
        raise NotQuick
    return quick_head(name, bytes([INT]), 1) + bytes([value])


def quick_head(name: str, head: bytes, size: int) -> bytes:
    """An entry up to its value, of which `head` and `size` bytes follow."""
    if not name.isascii() or len(name) >= ONE_BYTE // 2:
        raise NotQuick
    entry = KEY + bytes([len(name)]) + name.encode() + bytes([VALUE, len(head) + size]) + head
    return ENTRY + bytes([len(entry) + size]) + entry


def quick_read(payload: bytes) -> tuple[str, Parameter] | None:
    """The entry if it is a float or a small number under a short name; else None."""
    size = len(payload)
    if size < 6 or payload[0] != KEY[0] or payload[1] >= ONE_BYTE:
        return None
    value = 2 + payload[1]
    if value + 3 >= size or payload[value] != VALUE or payload[value + 1] != size - value - 2:
        return None
    key, kind, rest = payload[2:value], payload[value + 2], size - value - 3
    if not key.isascii():
        return None
    if kind == DOUBLE and rest == NUMBER.size:
        return key.decode(), float(NUMBER.unpack_from(payload, value + 3)[0])
    if kind == INT and rest == 1 and payload[-1] < ONE_BYTE:
        return key.decode(), payload[-1]
    return None


class ParameterMap(Protocol):
    """protobuf's map from string to InferParameter."""

    def __getitem__(self, key: str, /) -> InferParameter: ...


def fill(target: ParameterMap, parameters: Mapping[str, Parameter]) -> None:
    """Writes parameters into a protobuf map; InvalidInput for a value of another type or a number beyond 64 bits."""
    for name, value in parameters.items():
        try:
            place(target[name], name, value)
        except (UnicodeEncodeError, TypeError, ValueError):
            raise InvalidInput(f"parameter {name!r} cannot be written as UTF-8", parameter=repr(name)) from None


def place(target: InferParameter, name: str, value: Parameter) -> None:
    # bool before int, because True is an int.
    if isinstance(value, bool):
        target.bool_param = value
    elif isinstance(value, int):
        if value in INT64:
            target.int64_param = value
        elif value in UINT64:
            target.uint64_param = value
        else:
            raise InvalidInput(f"parameter '{name}' came as {value}, expected at most 64 bits", parameter=name)
    elif isinstance(value, float):
        target.double_param = value
    elif isinstance(value, str):
        target.string_param = value
    else:
        raise InvalidInput(
            f"parameter '{name}' came as {type(value).__name__}, expected bool, int, float or str", parameter=name
        )


def entry(payload: bytes) -> tuple[str, Parameter]:
    """One entry of the map as it travels, which is a message of its own."""
    if (quick := quick_read(payload)) is not None:
        return quick
    try:
        parsed = ModelInferRequest.ParametersEntry.FromString(payload)
    except DecodeError:
        raise malformed("a parameter cannot be read (not protobuf, or not UTF-8)") from None
    return parsed.key, value_of(parsed.key, parsed.value)


def plain(parameters: Mapping[str, InferParameter]) -> Parameters:
    return {name: value_of(name, value) for name, value in parameters.items()}


def value_of(name: str, parameter: InferParameter) -> Parameter:
    choice = parameter.WhichOneof("parameter_choice")
    if choice is None:
        raise InvalidInput(
            f"parameter '{name}' came without a value, expected a bool, a number or a string", parameter=name
        )
    value: Parameter = getattr(parameter, choice)
    return value
