"""Darknet's weights: a header, then float32 numbers in the order of the cfg's layers, without names."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from encephalon.areas.graph.cfg import MAX_BYTES
from encephalon.areas.graph.plan import Plan, plan_of
from encephalon.areas.importing.files import existing
from encephalon.areas.weights import listed
from encephalon.core.errors import InvalidInput

__all__ = ["read_cfg_file", "read_darknet"]


class Header(NamedTuple):
    length: int
    seen: int
    """Pictures that it was trained on."""


def read_cfg_file(path: Path) -> str:
    """NotFound, or InvalidInput for what is too large or no text."""
    existing(path)
    if path.stat().st_size > MAX_BYTES:
        raise InvalidInput(f"{path.name} has {path.stat().st_size} bytes, expected a cfg of at most {MAX_BYTES}")
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInput(f"{path.name} is no text; the cfg is the file with [net] in its first lines") from None


def read_darknet(path: Path, cfg: str) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The tensors by name, and notes. Raises `InvalidInput` that lists the tensors for which numbers are missing, or
    says how many are left over."""
    plan = plan_of(cfg)
    header = header_of(path)
    count, rest = divmod(path.stat().st_size - header.length, 4)
    if count < plan.parameters or rest:
        raise InvalidInput(missing(path, plan, count), needed=plan.parameters, got=count)
    if count > plan.parameters:
        raise InvalidInput(
            f"{path.name} has {count} numbers, but the cfg takes {plan.parameters}; {count - plan.parameters} are left "
            "over: it belongs to another cfg",
            needed=plan.parameters,
            got=count,
        )
    # Nothing is read yet: pages come in when they are copied into the file that is written.
    numbers = np.memmap(path, "<f4", "c", offset=header.length, shape=(count,)) if count else np.zeros(0, "<f4")
    tensors: dict[str, torch.Tensor] = {}
    start = 0
    for name, shape in names(plan):
        stop = start + math.prod(shape)
        tensors[name] = torch.from_numpy(numbers[start:stop].reshape(shape))
        start = stop
    return tensors, [f"trained on {header.seen} pictures"] if header.seen else []


def header_of(path: Path) -> Header:
    """Three numbers of four bytes; then the pictures seen, in four bytes before version 0.2 and in eight since."""
    with existing(path).open("rb") as file:
        data = file.read(20)
    if len(data) < 16:
        raise InvalidInput(f"{path.name} has {len(data)} bytes; a Darknet weights file has a header of 16 or 20")
    major, minor, _ = struct.unpack_from("<3i", data)
    if not (0 <= major < 1000 and 0 <= minor < 1000):
        raise InvalidInput(
            f"{path.name} has version {major}.{minor}; it is no Darknet weights file, or a transposed one"
        )
    if major * 10 + minor < 2:
        return Header(16, struct.unpack_from("<I", data, 12)[0])
    if len(data) < 20:
        raise InvalidInput(f"{path.name} has {len(data)} bytes; its header has 20")
    return Header(20, struct.unpack_from("<Q", data, 12)[0])


def names(plan: Plan) -> list[tuple[str, tuple[int, ...]]]:
    return [
        (f"layers.{index}.{name}", shape)
        for index, layer in enumerate(plan.layers)
        for name, shape in layer.tensors.items()
    ]


def missing(path: Path, plan: Plan, count: int) -> str:
    """Which tensors the file has no numbers for."""
    faults: list[str] = []
    start = 0
    for name, shape in names(plan):
        stop = start + math.prod(shape)
        if stop > count:
            found = max(0, count - start)
            faults.append(f"'{name}' has {found} of {stop - start} numbers" if found else f"'{name}' is missing")
        start = stop
    if not faults:
        return f"{path.name} ends within a number; it is cut short or damaged"
    return f"{path.name} is cut short or belongs to another cfg: {listed(faults)}"
