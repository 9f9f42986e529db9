"""One question and one answer, as the domain sees them."""

from __future__ import annotations

from dataclasses import dataclass, field

from encephalon.core.errors import InvalidInput
from encephalon.core.wire.tensor import Tensor, check_shape

__all__ = ["InferRequest", "InferResponse", "Parameter", "RequestedOutput", "SharedTensor", "StreamError"]

Parameter = bool | int | float | str
Parameters = dict[str, Parameter]

REGION = "shared_memory_region"
OFFSET = "shared_memory_offset"
BYTE_SIZE = "shared_memory_byte_size"


@dataclass(frozen=True, slots=True)
class SharedTensor:
    """A tensor that lies in shared memory: `byte_size` bytes at `offset` of the region registered as `region`."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    region: str
    offset: int
    byte_size: int

    @classmethod
    def of(cls, name: str, datatype: str, shape: tuple[int, ...], parameters: Parameters) -> SharedTensor:
        """From the protocol's parameters; InvalidInput when they, the datatype or the shape cannot be."""
        check_shape(name, datatype, shape)
        return cls(name, datatype, shape, *place(name, parameters))

    @property
    def parameters(self) -> Parameters:
        """As the protocol says it."""
        return {REGION: self.region, OFFSET: self.offset, BYTE_SIZE: self.byte_size}


@dataclass(slots=True)
class RequestedOutput:
    """An output that is asked for, and how."""

    name: str
    parameters: Parameters = field(default_factory=dict)

    @property
    def slot(self) -> tuple[str, int, int] | None:
        """(region, offset, byte_size) of the shared memory that it is to be written to; None means into the message."""
        return place(self.name, self.parameters) if REGION in self.parameters else None


@dataclass(slots=True)
class InferRequest:
    """`outputs` empty means every output. `shared_inputs` lie in shared memory; a service resolves them to `inputs`."""

    model_name: str
    model_version: str = ""
    id: str = ""
    parameters: Parameters = field(default_factory=dict)
    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[RequestedOutput] = field(default_factory=list)
    shared_inputs: list[SharedTensor] = field(default_factory=list)


@dataclass(slots=True)
class InferResponse:
    """`shared_outputs` were written to shared memory."""

    model_name: str
    model_version: str = ""
    id: str = ""
    parameters: Parameters = field(default_factory=dict)
    outputs: list[Tensor] = field(default_factory=list)
    shared_outputs: list[SharedTensor] = field(default_factory=list)


@dataclass(slots=True)
class StreamError:
    """The failure of one request of a stream. `id` and `parameters` are empty when the server did not send them."""

    message: str
    id: str = ""
    parameters: Parameters = field(default_factory=dict)


def place(name: str, parameters: Parameters) -> tuple[str, int, int]:
    region = parameters.get(REGION)
    if not isinstance(region, str) or not region:
        raise InvalidInput(f"tensor '{name}': {REGION} came as {region!r}, expected a name", tensor=name)
    return region, size_of(name, OFFSET, parameters.get(OFFSET, 0)), size_of(name, BYTE_SIZE, parameters.get(BYTE_SIZE))


def size_of(name: str, key: str, value: Parameter | None) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidInput(
            f"tensor '{name}': {key} came as {value!r}, expected a number of bytes", tensor=name, parameter=key
        )
    return value
