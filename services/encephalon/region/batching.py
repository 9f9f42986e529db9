"""Many messages to one batch of arrays, and one batch of answers back to many. Pure functions over numpy."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from encephalon.areas import Arrays
from encephalon.core.contract import Contract, TensorSpec
from encephalon.core.errors import Internal, InvalidInput
from encephalon.core.wire import Tensor, dtype_of

Array = np.ndarray[Any, np.dtype[Any]]

__all__ = ["Shapes", "checked_outputs", "chosen", "shapes_of", "split", "stack", "unify_shapes", "zeros"]

Inputs = Mapping[str, Tensor]
Shapes = tuple[tuple[int, ...] | None, ...]
"""Per input of the contract the dimensions beside the batch; None where an optional input is absent."""


def shapes_of(contract: Contract, inputs: Inputs) -> Shapes:
    return tuple(tensor.shape[1:] if (tensor := inputs.get(spec.name)) else None for spec in contract.inputs)


def unify_shapes(one: Shapes, other: Shapes) -> Shapes | None:
    """The shapes of a batch of both; an absent input fits any. None when they differ."""
    merged: list[tuple[int, ...] | None] = []
    for left, right in zip(one, other, strict=True):
        if left is not None and right is not None and left != right:
            return None
        merged.append(left if left is not None else right)
    return tuple(merged)


def stack(contract: Contract, messages: Sequence[Inputs], rows: Sequence[int]) -> Arrays:
    """Along the batch. A single message is passed as it is, without a copy.

    An optional input NAME that only some messages have is filled with zeros for the others, and `NAME.present`,
    bool [batch], says which rows came. One that no message has is left out.
    """
    if len(messages) == 1:
        return {name: tensor.array for name, tensor in messages[0].items()}
    batch: Arrays = {}
    for spec in contract.inputs:
        came = [message.get(spec.name) for message in messages]
        if all(came_one is not None for came_one in came):
            batch[spec.name] = np.concatenate([tensor.array for tensor in came if tensor is not None])
        elif any(came_one is not None for came_one in came):
            batch[spec.name], batch[f"{spec.name}.present"] = fill(came, rows)
    return batch


def fill(came: Sequence[Tensor | None], rows: Sequence[int]) -> tuple[Array, Array]:
    example = next(tensor.array for tensor in came if tensor is not None)
    parts = [
        tensor.array if tensor is not None else np.zeros((count, *example.shape[1:]), example.dtype)
        for tensor, count in zip(came, rows, strict=True)
    ]
    return np.concatenate(parts), np.repeat([tensor is not None for tensor in came], rows)


def split(
    contract: Contract, outputs: Arrays, rows: Sequence[int], wanted: Sequence[Collection[str] | None]
) -> list[list[Tensor]]:
    """Per message its rows of each output that it wants (None: all). Internal when the outputs break the contract."""
    whole = checked_outputs(contract, outputs, sum(rows))
    if len(rows) == 1:
        return [chosen(whole, wanted[0])]
    answers: list[list[Tensor]] = []
    start = 0
    for count, names in zip(rows, wanted, strict=True):
        answers.append([part(tensor, start, start + count) for tensor in chosen(whole, names)])
        start += count
    return answers


def chosen(outputs: list[Tensor], wanted: Collection[str] | None) -> list[Tensor]:
    return outputs if wanted is None else [tensor for tensor in outputs if tensor.name in wanted]


def part(tensor: Tensor, start: int, stop: int) -> Tensor:
    rows = tensor.array[start:stop]
    return Tensor.plain(tensor.name, tensor.datatype, rows) or Tensor.of(tensor.name, rows, tensor.datatype)


def checked_outputs(contract: Contract, outputs: Arrays, rows: int) -> list[Tensor]:
    """What a network gave for `rows`, in the contract's order. Internal when it breaks the contract."""
    return [checked_output(spec, outputs.get(spec.name), rows) for spec in contract.outputs]


def checked_output(spec: TensorSpec, array: Array | None, rows: int) -> Tensor:
    if array is None:
        raise Internal(f"it gave no output '{spec.name}'", tensor=spec.name)
    try:
        tensor = Tensor.plain(spec.name, spec.datatype, array) or Tensor.of(spec.name, array, spec.datatype)
        spec.check(tensor)
    except InvalidInput as error:  # the network's fault, not the sender's
        raise Internal(f"its output broke the contract: {error.message}", tensor=spec.name) from error
    if tensor.shape[0] != rows:
        raise Internal(f"it gave {tensor.shape[0]} rows of '{spec.name}' for {rows}", tensor=spec.name)
    return tensor


def zeros(contract: Contract, rows: int, any_size: int) -> dict[str, Tensor]:
    """An empty message that fits the contract, with `any_size` wherever a dimension is -1: for warming up."""
    return {
        spec.name: zero(spec, (rows, *(any_size if size < 0 else size for size in spec.shape[1:])))
        for spec in contract.inputs
    }


def zero(spec: TensorSpec, shape: tuple[int, ...]) -> Tensor:
    if spec.datatype == "BYTES":
        return Tensor.of(spec.name, np.full(shape, b"", dtype=object))
    return Tensor.of(spec.name, np.zeros(shape, dtype_of(spec.datatype)))
