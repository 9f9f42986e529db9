"""Checks what comes over the wire against the region's contract, before it reaches the network."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from encephalon.core.contract import Contract, TensorSpec, fits
from encephalon.core.errors import InvalidInput
from encephalon.learning.activations import datatype_of

__all__ = ["PRESENT", "check_gradients", "check_inputs"]

PRESENT = ".present"
"""Behind the name of an optional input: bool [rows], which rows of it are there."""


def check_inputs(contract: Contract, inputs: Mapping[str, torch.Tensor]) -> None:
    """InvalidInput, naming the tensor, unless these are inputs of the contract with one number of rows. What a network
    under autocast gave may be bfloat16 where the contract says FP32."""
    specs = {spec.name: spec for spec in contract.inputs}
    rows: dict[str, int] = {}
    for name, tensor in inputs.items():
        spec = specs.get(name)
        if spec is not None:
            _check(spec, tensor)
        elif not _is_mask(name, specs, tensor):
            raise InvalidInput(f"unknown input '{name[:100]}'; expected {', '.join(specs)}", tensor=name[:100])
        rows[name] = len(tensor)
    for spec in contract.inputs:
        if not spec.optional and spec.name not in inputs:
            raise InvalidInput(f"input '{spec.name}' is missing; send it", tensor=spec.name)
    if len(set(rows.values())) != 1 or 0 in rows.values():
        counts = ", ".join(f"'{name}' {count}" for name, count in rows.items())
        raise InvalidInput(f"the inputs have the numbers of rows {counts}; send one number, at least 1")


def check_gradients(outputs: Mapping[str, torch.Tensor], gradients: Mapping[str, torch.Tensor]) -> None:
    """InvalidInput, naming the tensor, unless each is the gradient of an output: of its dtype and shape."""
    for name, gradient in gradients.items():
        output = outputs.get(name)
        if output is None or not output.is_floating_point():
            raise InvalidInput(f"a gradient came for '{name[:100]}', which is no output that learns", tensor=name[:100])
        if (gradient.dtype, gradient.shape) != (output.dtype, output.shape):
            raise InvalidInput(
                f"the gradient of '{name}' came as {gradient.dtype} {list(gradient.shape)}, expected that of the "
                f"output, {output.dtype} {list(output.shape)}",
                tensor=name,
            )


def _check(spec: TensorSpec, tensor: torch.Tensor) -> None:
    datatype = datatype_of(tensor)
    if datatype != spec.datatype and (datatype, spec.datatype) != ("BF16", "FP32"):
        raise InvalidInput(
            f"tensor '{spec.name}' came as {datatype}, expected {spec.datatype}; convert it before sending",
            tensor=spec.name,
        )
    if not fits(tensor.shape, spec.shape):
        raise InvalidInput(
            f"tensor '{spec.name}' came with shape {list(tensor.shape)}, expected {list(spec.shape)} (-1 is any size)",
            tensor=spec.name,
        )


def _is_mask(name: str, specs: Mapping[str, TensorSpec], tensor: torch.Tensor) -> bool:
    spec = specs.get(name.removesuffix(PRESENT))
    return name.endswith(PRESENT) and spec is not None and tensor.dtype is torch.bool and tensor.dim() == 1
