"""A brain of the library whose versions can be told apart by their numbers, and processes that follow it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.client import Answer, Brains
from encephalon.library.brains.pinning import pinned
from encephalon.library.library import Library
from encephalon.state import open_key_value, open_objects
from tests.waiting import until

__all__ = ["Stores", "add_brain", "ask_both", "brain_text", "following_region", "library_in", "version_of"]

START_S = 30.0
FAR = 1000.0
"""Between the offsets of the two regions of one version, so that a mixed answer is no version's."""


def brain_text(version: int, *, first: str = "", second: str = "", more: str = "") -> str:
    """`left` through `first`, `right` through `second`, then their sum; version v adds v and 1000 v."""
    plain = "{network: diagnostics/001, arguments: {offset: %s}, max_delay_ms: 0}"
    return (
        "brain: both\n"
        "inputs:\n"
        "  left: {datatype: FP32, shape: [-1, -1]}\n"
        "  right: {datatype: FP32, shape: [-1, -1]}\n"
        "regions:\n"
        f"  first: {first or plain % version}\n"
        f"  second: {second or plain % (version * FAR)}\n"
        "  join: {network: diagnostics/002, max_delay_ms: 0}\n"
        "pathways:\n"
        "  - {from: left, to: first.x}\n"
        "  - {from: right, to: second.x}\n"
        "  - {from: first.y, to: join.a}\n"
        "  - {from: second.y, to: join.b}\n"
        f"outputs: {{sum: join.y, one: first.y}}\n{more}"
    )


async def add_brain(library: Library, text: str, alias: str | None = None) -> int:
    """Its version."""
    body, parents = await pinned(library, text)
    name = json.loads(body.manifest)["brain"]
    record = await library.add(pb.Record(id=pb.Reference(kind=pb.KIND_BRAIN, name=name), parents=parents, brain=body))
    if alias:
        await library.alias(f"brain:{name}@{record.id.version}", alias)
    return int(record.id.version)


class Stores:
    """Of a library in a folder, as addresses."""

    def __init__(self, folder: Path) -> None:
        self.state = f"sqlite://{folder / 'state.db'}"
        self.objects = f"folder://{folder / 'objects'}"

    @property
    def environment(self) -> dict[str, str]:
        return {"ENCEPHALON_STATE": self.state, "ENCEPHALON_OBJECTS": self.objects}


@contextlib.asynccontextmanager
async def library_in(stores: Stores) -> AsyncIterator[Library]:
    async with open_key_value(stores.state) as key_value, open_objects(stores.objects) as objects:
        yield Library(key_value, objects)


@contextlib.asynccontextmanager
async def following_region(stores: Stores, follow: str, region: str, *arguments: str) -> AsyncIterator[Path]:
    """A region's process, ready; yields its log."""
    with tempfile.TemporaryDirectory(prefix="enc-") as name:
        log = Path(name) / "log"
        words = [sys.executable, "-m", "encephalon.region", "--follow", follow, "--region", region, "--threads", "1"]
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: ASYNC220 - starting one takes a millisecond
                [*words, "--unix", f"{name}/sock", *arguments],
                stdout=output,
                stderr=output,
                env={**os.environ, **stores.environment},
            )

        def ready() -> bool:
            text = log.read_text(errors="replace")
            assert process.poll() is None, f"region {region} ended with {process.returncode}:\n{text[-4000:]}"
            return "the region is ready" in text

        try:
            await until(ready, START_S, f"region {region} is ready")
            yield log
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait, 20)


async def ask_both(brains: Brains, left: float, right: float) -> Answer:
    return await brains.infer("both", left=np.full((1, 2), left, np.float32), right=np.full((1, 2), right, np.float32))


def version_of(answer: Answer, left: float, right: float) -> int:
    """The version that the answer says, after its numbers were found to be those of this version."""
    version = int(answer.version)
    total, one = float(answer["sum"][0, 0]), float(answer["one"][0, 0])
    assert one == left + version, f"version {version} gave {one} for {left}"
    assert total == left + right + version * (1 + FAR), f"version {version} gave {total} for {left} and {right}"
    return version
