"""Weight files: safetensors only, with the architecture, its constructor arguments and a version in the metadata.

Nothing in a weight file is ever executed. Tensors may be stored in half precision; a network computes in float32.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from encephalon.core.errors import InvalidInput, NotFound

__all__ = ["Weights", "dumps", "fill", "listed", "pack", "read"]

LISTED = 20
"""Differences that an error names before it only counts them."""


class Weights(NamedTuple):
    tensors: dict[str, Tensor]
    architecture: str
    """`area/code`, or "" when the file does not say."""
    arguments: dict[str, Any]
    """Of the constructor."""
    version: str


def read(source: Path | bytes) -> Weights:
    """Raises `NotFound` for a missing file and `InvalidInput` for one that is no safetensors file or says nonsense
    about itself."""
    name = "the weights" if isinstance(source, bytes) else f"the weights file {source}"
    data = source if isinstance(source, bytes) else _bytes(source)
    try:
        tensors = load_tensors(data)
        metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__") or {}
        arguments = json.loads(metadata.get("arguments", "{}"))
    except (SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise InvalidInput(f"{name} cannot be read as safetensors: {error}") from error
    if not isinstance(arguments, dict):
        raise InvalidInput(f"{name} names its constructor arguments as {arguments!r}, expected a JSON object")
    return Weights(tensors, metadata.get("architecture", ""), arguments, metadata.get("version", ""))


def dumps(
    module: nn.Module, architecture: str, arguments: Mapping[str, Any], version: str, *, half: bool = False
) -> bytes:
    """The module's state as a safetensors file, float32 or float16; equal states give equal bytes."""
    form = torch.float16 if half else torch.float32
    tensors = {
        name: tensor.detach().to("cpu", form, copy=True).contiguous() for name, tensor in module.state_dict().items()
    }
    return pack(tensors, architecture, arguments, version)


def pack(tensors: Mapping[str, Tensor], architecture: str, arguments: Mapping[str, Any], version: str) -> bytes:
    """Contiguous tensors as a safetensors file, which says whose they are; equal tensors give equal bytes."""
    metadata = {
        "architecture": architecture,
        "arguments": json.dumps(dict(arguments), sort_keys=True),
        "version": version,
    }
    return _ordered(save_tensors(dict(tensors), metadata))


def fill(module: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Puts `tensors` into the module called `name`. Raises `InvalidInput` that lists what is missing, superfluous,
    misshapen or not finite."""
    wanted = module.state_dict()
    common = wanted.keys() & tensors.keys()
    faults = [f"'{tensor}' is missing" for tensor in sorted(wanted.keys() - tensors.keys())]
    faults += [fault for tensor in sorted(common) if (fault := _fault(tensor, tensors[tensor], wanted[tensor]))]
    faults += [f"'{tensor}' is superfluous" for tensor in sorted(tensors.keys() - wanted.keys())]
    if faults:
        raise InvalidInput(f"the weights do not fit {name}: {listed(faults)}", network=name, faults=len(faults))
    held = {tensor: value.to(wanted[tensor].dtype) for tensor, value in tensors.items()}
    module.load_state_dict(held, assign=any(tensor.is_meta for tensor in wanted.values()))


def listed(faults: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    return "; ".join(faults[:LISTED]) + (f"; and {len(faults) - LISTED} more" if len(faults) > LISTED else "")


def _ordered(data: bytes) -> bytes:
    """The same file with a sorted header: safetensors writes its metadata in an order that differs between runs."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[start:]


def _fault(name: str, found: Tensor, wanted: Tensor) -> str:
    if found.shape != wanted.shape:
        return f"'{name}' has shape {list(found.shape)}, expected {list(wanted.shape)}"
    if found.is_floating_point() != wanted.is_floating_point():
        kind = "floating point" if wanted.is_floating_point() else str(wanted.dtype).removeprefix("torch.")
        return f"'{name}' has type {str(found.dtype).removeprefix('torch.')}, expected {kind}"
    # As it will be computed with: a float64 may be too large for float32.
    if not bool(torch.isfinite(found.to(wanted.dtype)).all()):
        return f"'{name}' holds numbers that are not finite"
    return ""


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotFound(f"the weights file {path} cannot be read: {error.strerror}", path=path) from error
