"""`encephalon infer`: files in, JSON out."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from encephalon.cli import files, interrupts
from encephalon.cli.interrupts import Interrupts
from encephalon.client import Answer, connect
from encephalon.core.errors import InvalidInput
from encephalon.local import Folders, default_state_dir, running_brains

__all__ = ["run"]

DEFAULT_ADDRESS = "127.0.0.1:9000"


def run(
    brain: str,
    inputs: Sequence[str],
    *,
    address: str | None,
    sample_rate: int,
    timeout_s: float,
    state_dir: Path | None,
) -> None:
    paths = dict(named_file(item) for item in inputs)
    if len(paths) != len(inputs):
        raise InvalidInput("an input is given twice; give each --input once")
    where = address or address_here(brain, state_dir or default_state_dir())

    async def command(interrupted: Interrupts) -> Answer:
        async with connect(where, timeout=timeout_s) as brains:
            contract = await brains.contract(brain)
            specs = {spec.name: spec for spec in contract.inputs}
            unknown = [name for name in paths if name not in specs]
            if unknown:
                raise InvalidInput(f"brain '{brain}' has no input '{unknown[0]}'; its inputs are {', '.join(specs)}")
            arrays = {name: files.read(path, specs[name], sample_rate) for name, path in paths.items()}
            return await brains.infer(brain, arrays, timeout=timeout_s)

    sys.stdout.write(json.dumps(plain(brain, interrupts.run(command)), indent=2) + "\n")


def named_file(item: str) -> tuple[str, Path]:
    name, separator, path = item.partition("=")
    if not name or not separator or not path:
        raise InvalidInput(f"--input {item} cannot be read; write it as --input image=digit.png")
    return name, Path(path)


def address_here(brain: str, state_dir: Path) -> str:
    """Where the brain runs on this machine, else where a coordinator listens by default."""
    records = running_brains(Folders(state_dir))
    return next((record.address for record in records if record.brain == brain), DEFAULT_ADDRESS)


def plain(brain: str, answer: Answer) -> dict[str, Any]:
    return {
        "brain": brain,
        "version": answer.version,
        "outputs": {name: values(array) for name, array in answer.items()},
        "missing": list(answer.missing),
        "region_ms": {name: round(value, 3) for name, value in answer.timings.items()},
        "versions": dict(answer.versions),
    }


def values(array: np.ndarray[Any, Any]) -> Any:
    """Numbers as the shortest text that gives them back; bytes as text."""
    if array.dtype == np.object_:
        return reshaped([item.decode(errors="replace") for item in array.ravel()], array.shape)
    if array.dtype.kind == "f" or array.dtype.name == "bfloat16":
        return reshaped([float(str(item)) for item in array.ravel()], array.shape)
    return array.tolist()


def reshaped(items: list[Any], shape: tuple[int, ...]) -> Any:
    filled = np.empty(len(items), np.object_)
    filled[:] = items
    return filled.reshape(shape).tolist()
