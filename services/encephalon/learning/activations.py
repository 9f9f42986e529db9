"""Torch tensors as what goes over a pathway, and back: raw little-endian bytes, checked when they come in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import torch

from encephalon.api.learning.v1 import learning_pb2 as pb
from encephalon.core.errors import InvalidInput
from encephalon.core.wire import Tensor

__all__ = ["MOST_TENSORS", "datatype_of", "decode", "encode", "nbytes"]

MOST_TENSORS: Final = 512
"""Of one message: an area has at most some dozens of inputs or outputs, each perhaps with a mask or logits."""

DTYPES: Final[Mapping[str, torch.dtype]] = {
    "BOOL": torch.bool,
    "UINT8": torch.uint8,
    "INT8": torch.int8,
    "INT16": torch.int16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "FP16": torch.float16,
    "BF16": torch.bfloat16,
    "FP32": torch.float32,
    "FP64": torch.float64,
}
NAMES: Final = {dtype: name for name, dtype in DTYPES.items()}


def datatype_of(tensor: torch.Tensor) -> str:
    """The name of its dtype on the wire, "" when it has none."""
    return NAMES.get(tensor.dtype, "")


def encode(tensors: Mapping[str, torch.Tensor]) -> list[pb.NamedTensor]:
    """In the order of the mapping. InvalidInput for a dtype that has no name on the wire."""
    return [_encoded(name, tensor) for name, tensor in tensors.items()]


def decode(tensors: Iterable[pb.NamedTensor]) -> dict[str, torch.Tensor]:
    """New tensors that nobody else writes to. InvalidInput, naming the tensor, for too many, for one that came twice,
    for an unknown datatype, and for bytes that do not fit the shape."""
    found: dict[str, torch.Tensor] = {}
    for tensor in tensors:
        if tensor.name in found:
            raise InvalidInput(f"tensor '{tensor.name[:100]}' came twice; send it once", tensor=tensor.name[:100])
        if len(found) == MOST_TENSORS:
            raise InvalidInput(f"more than {MOST_TENSORS} tensors came in one message; send fewer")
        found[tensor.name] = _decoded(tensor)
    return found


def nbytes(tensors: Mapping[str, torch.Tensor]) -> int:
    """Bytes of the elements."""
    return sum(tensor.nbytes for tensor in tensors.values())


def _encoded(name: str, tensor: torch.Tensor) -> pb.NamedTensor:
    datatype = NAMES.get(tensor.dtype)
    if datatype is None:
        raise InvalidInput(
            f"tensor '{name}' is {tensor.dtype}, expected one of {', '.join(DTYPES)}; convert it in the network",
            tensor=name,
        )
    flat = tensor.detach().contiguous().reshape(-1)
    # numpy has no bfloat16, so the bytes are looked at; an empty tensor has none.
    data = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    return pb.NamedTensor(name=name, datatype=datatype, shape=tensor.shape, data=data)


def _decoded(tensor: pb.NamedTensor) -> torch.Tensor:
    dtype = DTYPES.get(tensor.datatype)
    if dtype is None:
        raise InvalidInput(
            f"tensor '{tensor.name[:100]}' came as {tensor.datatype[:40]}, expected one of {', '.join(DTYPES)}",
            tensor=tensor.name[:100],
        )
    data = tensor.data
    checked = Tensor.raw(tensor.name[:100], tensor.datatype, tensor.shape, data)
    if not data:
        return torch.empty(checked.shape, dtype=dtype)
    return torch.frombuffer(bytearray(data), dtype=dtype).reshape(checked.shape)
