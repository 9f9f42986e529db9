"""Parameters of a message, a tensor or a requested output: names with a bool, a number or a string."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from google.protobuf.message import DecodeError

from encephalon.api.inference.v1.inference_pb2 import InferParameter, ModelInferRequest
from encephalon.core.errors import InvalidInput
from encephalon.core.wire.fields import malformed
from encephalon.core.wire.messages import Parameter, Parameters

__all__ = ["entry", "fill", "value_of"]

INT64 = range(-(2**63), 2**63)
UINT64 = range(2**64)


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
