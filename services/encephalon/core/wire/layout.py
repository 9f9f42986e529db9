"""The header of one tensor: its name, datatype, shape and parameters, without the elements.

Requests of one caller differ in their elements and seldom in their layout, so both directions remember what they have
seen and protobuf works once per layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from google.protobuf.message import DecodeError

from encephalon.api.inference.v1.inference_pb2 import ModelInferRequest
from encephalon.core.errors import InvalidInput
from encephalon.core.wire import contents, parameters
from encephalon.core.wire.fields import head, malformed
from encephalon.core.wire.messages import REGION, Parameters, SharedTensor
from encephalon.core.wire.tensor import Tensor, check_bytes, check_shape

__all__ = ["Layout", "encode", "encode_shared", "layout"]

# The number of the field that holds tensor headers, in requests and in responses.
NUMBER = 5
# Longer headers carry typed contents, which never come back equal.
LONGEST_REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class Layout:
    """What a header says. `nbytes` is -1 for BYTES; `typed` are the elements if they came in the header."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    count: int
    nbytes: int
    parameters: Parameters
    typed: memoryview | None
    shared: bool

    def tensor(self, data: memoryview) -> Tensor:
        """InvalidInput unless the bytes fit, and when the elements came in the header already."""
        if self.typed is not None:
            raise self.twice()
        if len(data) != self.nbytes or self.datatype == "BOOL":
            check_bytes(self.name, self.datatype, self.shape, self.count, self.nbytes, data)
        return Tensor(self.name, self.datatype, self.shape, data)

    def twice(self) -> InvalidInput:
        return InvalidInput(
            f"tensor '{self.name}' came in typed contents beside raw contents; send every tensor the same way",
            tensor=self.name,
        )

    def shared_tensor(self) -> SharedTensor:
        return SharedTensor.of(self.name, self.datatype, self.shape, self.parameters)


@lru_cache(maxsize=1024)
def encode(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    """The whole field, tag and length included. Fields of inputs and outputs have the same numbers."""
    return serialise(name, datatype, shape, {})


def encode_shared(tensor: SharedTensor) -> bytes:
    return serialise(tensor.name, tensor.datatype, tensor.shape, tensor.parameters)


def serialise(name: str, datatype: str, shape: tuple[int, ...], values: Parameters) -> bytes:
    try:
        message = ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    except (UnicodeEncodeError, ValueError):
        raise InvalidInput(f"a tensor is named {name!r}, which cannot be written as UTF-8") from None
    parameters.fill(message.parameters, values)
    payload = message.SerializeToString(deterministic=True)
    return head(NUMBER, len(payload)) + payload


def layout(payload: bytes) -> Layout:
    """Reads a header; InvalidInput when it is none or when no tensor can be like this."""
    return remembered(payload) if len(payload) <= LONGEST_REMEMBERED else parse(payload)


def parse(payload: bytes) -> Layout:
    try:
        message = ModelInferRequest.InferInputTensor.FromString(payload)
    except DecodeError:
        raise malformed("the header of a tensor cannot be read (not protobuf, or a name that is not UTF-8)") from None
    name, datatype, shape = message.name, message.datatype, tuple(message.shape)
    if not name:
        raise InvalidInput("a tensor came without a name; name every tensor as the model's metadata does")
    count, nbytes = check_shape(name, datatype, shape)
    values = parameters.plain(message.parameters)
    # Contents that are there but empty say nothing.
    filled = message.HasField("contents") and bool(message.contents.ListFields())
    typed = contents.read(name, datatype, shape, count, message.contents) if filled else None
    shared = REGION in values
    if typed is not None and shared:
        raise InvalidInput(
            f"tensor '{name}' came both in its contents and in shared memory; send it one way", tensor=name
        )
    return Layout(name, datatype, shape, count, nbytes, values, typed, shared)


remembered = lru_cache(maxsize=1024)(parse)
