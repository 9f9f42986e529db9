"""Typed contents: the elements of a tensor as repeated numbers. Accepted from clients, never sent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from encephalon.api.inference.v1.inference_pb2 import InferTensorContents
from encephalon.core.errors import InvalidInput
from encephalon.core.wire import elements
from encephalon.core.wire.datatypes import DTYPES

__all__ = ["read"]

FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def read(name: str, datatype: str, shape: Sequence[int], count: int, contents: InferTensorContents) -> memoryview:
    """The raw bytes of typed contents; InvalidInput when they stand in another field, are too many, few or large."""
    field = FIELDS.get(datatype)
    if field is None:
        raise InvalidInput(
            f"tensor '{name}' is {datatype}, which has no typed contents; send it as raw bytes", tensor=name
        )
    for descriptor, _ in contents.ListFields():
        if descriptor.name != field:
            raise InvalidInput(
                f"tensor '{name}' came in {descriptor.name}, expected {field} for {datatype}",
                tensor=name,
                got=descriptor.name,
                expected=field,
            )
    values = getattr(contents, field)
    if len(values) != count:
        raise InvalidInput(
            f"tensor '{name}' came with {len(values)} elements, expected {count} for shape {list(shape)}",
            tensor=name,
            got=len(values),
            expected=count,
        )
    if datatype == "BYTES":
        return memoryview(elements.join(name, values))
    return numbers(name, datatype, values)


def numbers(name: str, datatype: str, values: Sequence[float]) -> memoryview:
    try:
        # A list, because from protobuf's own container numpy casts without a check.
        return memoryview(np.array(list(values), dtype=DTYPES[datatype]).tobytes())
    except OverflowError:
        raise InvalidInput(f"tensor '{name}' has an element that does not fit into {datatype}", tensor=name) from None
