"""Looks through an ONNX file without loading it: which operators it uses, and whether it reaches for other files.

onnxruntime opens whatever files a graph names as external data, and a graph may come from anybody; so this is asked
before. Walks the protobuf wire format over the parts of `onnx.proto` that can hold an operator or a tensor, and skips
the rest, so that a graph of any size costs next to nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from encephalon.core.errors import InvalidInput

__all__ = ["Scanned", "scan"]

MAX_DEPTH = 32
MAX_PARTS = 1_000_000
"""Operators, tensors and attributes; the largest published graphs have some ten thousand."""
MAX_OPERATORS = 200_000
"""Once every call of a function is written out, as onnxruntime does before it runs a graph."""

# Message to field number to the message in it (onnx.proto of release 1.17).
NESTED: Mapping[str, Mapping[int, str]] = MappingProxyType(
    {
        "model": {7: "graph", 20: "training", 25: "function"},
        "training": {1: "graph", 2: "graph"},
        "graph": {1: "node", 5: "tensor", 15: "sparse"},
        "function": {7: "node", 11: "attribute"},
        "node": {5: "attribute"},
        "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
        "sparse": {1: "tensor", 2: "tensor"},
        "tensor": {},
    }
)
OP_TYPE, NODE_DOMAIN, NODE_OVERLOAD = 4, 7, 8
FUNCTION_NAME, FUNCTION_DOMAIN, FUNCTION_OVERLOAD = 1, 10, 13
EXTERNAL_DATA, DATA_LOCATION = 13, 14
LENGTH_DELIMITED = 2
UNREAL = "the file nests deeper or has more parts than any real ONNX graph"


Operator = tuple[str, str, str]
"""Domain, name and overload."""


@dataclass(slots=True)
class Scanned:
    graphs: int = 0
    operators: Counter[Operator] = field(default_factory=Counter)
    """How often the graphs use each."""
    functions: dict[Operator, Counter[Operator]] = field(default_factory=dict)
    """Those that the file itself defines, and what each uses."""
    external: bool = False
    """Some tensor lies in another file."""
    parts: int = 0


def scan(data: bytes) -> Scanned:
    """InvalidInput for what is no protobuf message, or nests deeper or has more parts than any real graph."""
    found = Scanned()
    walk(memoryview(data), "model", found, found.operators, 0)
    check_calls(found)
    return found


def walk(data: memoryview, message: str, found: Scanned, operators: Counter[Operator], depth: int) -> None:
    """`operators` counts those of the graph or function that the message is a part of."""
    found.parts += 1
    if depth > MAX_DEPTH or found.parts > MAX_PARTS:
        raise InvalidInput(UNREAL)
    if message == "function":
        operators = Counter()
    nested = NESTED[message]
    names: dict[int, str] = {}
    for number, value in fields(data):
        if isinstance(value, memoryview):
            if number in nested:
                walk(value, nested[number], found, operators, depth + 1)
            elif message in ("node", "function") and len(value) <= 1_000:
                names[number] = bytes(value).decode("utf-8", "replace")
        if message == "tensor" and (number == EXTERNAL_DATA or (number == DATA_LOCATION and value)):
            found.external = True
    if message == "graph":
        found.graphs += 1
    elif message == "node":
        operators[names.get(NODE_DOMAIN, ""), names.get(OP_TYPE, ""), names.get(NODE_OVERLOAD, "")] += 1
    elif message == "function":
        name = names.get(FUNCTION_DOMAIN, ""), names.get(FUNCTION_NAME, ""), names.get(FUNCTION_OVERLOAD, "")
        found.functions[name] = operators


def check_calls(found: Scanned) -> None:
    """InvalidInput when functions that use each other would be written out to more than any real graph."""
    sizes: dict[Operator, int] = {}

    def size(operator: Operator, depth: int) -> int:
        if operator not in found.functions:
            return 1
        if depth > MAX_DEPTH:
            raise InvalidInput(UNREAL)
        if operator not in sizes:
            uses = found.functions[operator].items()
            sizes[operator] = sum(count * size(used, depth + 1) for used, count in uses)
        return sizes[operator]

    if sum(count * size(operator, 0) for operator, count in found.operators.items()) > MAX_OPERATORS:
        raise InvalidInput(UNREAL)


def fields(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Field number, and the bytes or the number."""
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = varint(data, at)
            yield tag >> 3, value
            continue
        if kind == LENGTH_DELIMITED:
            length, at = varint(data, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise InvalidInput("the file is no ONNX graph, or is damaged")
        if length > len(data) - at:
            raise InvalidInput("the file is no ONNX graph, or is cut short")
        yield tag >> 3, data[at : at + length]
        at += length


def varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise InvalidInput("the file is no ONNX graph, or is cut short")
