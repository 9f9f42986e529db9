"""Weights of any format made into a file that a region runs, in a process of its own: this one loads no torch, and what
a hostile file may do stays there.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core import errors
from encephalon.core.errors import EncephalonError, Internal, InvalidInput

__all__ = ["Asked", "Converted", "converted"]

DEADLINE_S = 360.0
"""The process gives up by itself after 300 s, unless a damaged file holds it where it cannot."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The file, which network of which area it is of, and how its tensors and the constructor's arguments are named."""

    source: Path
    area: str
    code: str
    cfg: Path | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)
    """JSON or text by name."""
    rename: Mapping[str, str] = field(default_factory=dict)

    def words(self, out: Path) -> list[str]:
        source = str(self.source)
        words = [
            f"./{source}" if source.startswith("-") else source,
            "--area",
            self.area,
            "--code",
            self.code,
            "--out",
            str(out),
            "--json",
        ]
        if self.cfg is not None:
            words += ["--cfg", str(self.cfg)]
        words += [word for name, value in self.arguments.items() for word in ("--argument", f"{name}={value}")]
        return words + [word for old, new in self.rename.items() for word in ("--rename", f"{old}={new}")]


@dataclass(frozen=True, slots=True)
class Converted:
    """`network` lacks its weights, which are in the file."""

    network: pb.Network
    notes: list[str]


async def converted(asked: Asked, out: Path) -> Converted:
    """Writes the file. Raises what the conversion raised, InvalidInput, NotFound, Unsupported, ..., and InvalidInput
    when it takes too long."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "encephalon.areas.importing", *asked.words(out)),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        async with asyncio.timeout(DEADLINE_S):
            printed, said = await process.communicate()
    except TimeoutError:
        raise InvalidInput(f"{asked.source} could not be read within {DEADLINE_S:g} s; is it damaged?") from None
    finally:
        await end(process)
    return read(asked, process.returncode or 0, printed.decode(errors="replace"), said.decode(errors="replace"))


async def end(process: Process) -> None:
    """Nothing is left running when we are interrupted."""
    if process.returncode is None:
        process.kill()
        await process.wait()


def read(asked: Asked, code: int, printed: str, said: str) -> Converted:
    try:
        answer = json.loads(printed)
    except ValueError:
        reason = (said.strip().splitlines() or [f"it ended with code {code}"])[-1]
        raise failure(asked, reason) from None
    if "error" in answer:
        kind = getattr(errors, answer["error"]["reason"], Internal)
        raise kind(answer["error"]["message"], path=asked.source)
    return Converted(network_of(answer), list(answer["notes"]))


def failure(asked: Asked, reason: str) -> EncephalonError:
    if "No module named" in reason:
        package = reason.partition("'")[2].partition("'")[0].partition(".")[0]
        return errors.FailedPrecondition(f"to read weights, {package} is needed; pip install 'encephalon[all]'")
    return Internal(f"{asked.source} could not be read: {reason}", path=asked.source)


def network_of(answer: Mapping[str, Any]) -> pb.Network:
    contract = answer["contract"]
    return pb.Network(
        area=answer["area"],
        code=answer["code"],
        architecture=answer["architecture"],
        arguments=json.dumps(answer["arguments"], sort_keys=True),
        format=answer["format"],
        contract=pb.Contract(
            inputs=[pb.TensorSpec(**spec) for spec in contract["inputs"]],
            outputs=[pb.TensorSpec(**spec) for spec in contract["outputs"]],
        ),
    )
