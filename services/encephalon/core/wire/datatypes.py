"""The datatypes of the Open Inference Protocol and the numpy dtypes that hold them."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from encephalon.core.errors import InvalidInput

__all__ = ["DATATYPES", "datatype_of", "dtype_of"]

# Little-endian whatever the machine, because that is the order on the wire. BYTES are length-prefixed.
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(np.object_),
}
DATATYPES: tuple[str, ...] = tuple(DTYPES)
# 0 stands for BYTES.
ITEM_SIZES: dict[str, int] = {name: 0 if name == "BYTES" else dtype.itemsize for name, dtype in DTYPES.items()}
NAMES: dict[np.dtype[Any], str] = {dtype: name for name, dtype in DTYPES.items()}


def dtype_of(datatype: str) -> np.dtype[Any]:
    """The numpy dtype of a datatype ("FP32" gives `<f4`, "BYTES" gives object); InvalidInput for an unknown name."""
    try:
        return DTYPES[datatype]
    except KeyError:
        raise unknown(datatype) from None


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The datatype of a dtype of either byte order; strings, bytes and objects are BYTES. InvalidInput for others."""
    if dtype.kind in "SUO":
        return "BYTES"
    name = NAMES.get(dtype) or NAMES.get(dtype.newbyteorder("<"))
    if name is None:
        raise InvalidInput(
            f"an array came with dtype {dtype}, expected one of {', '.join(DATATYPES)}; convert it before sending",
            got=dtype,
        )
    return name


def unknown(datatype: str) -> InvalidInput:
    return InvalidInput(
        f"datatype '{datatype[:40]}' is unknown; expected one of {', '.join(DATATYPES)}", got=datatype[:40]
    )
