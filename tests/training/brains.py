"""Brains that train in no time, and one that has much to send; with the data that they learn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from encephalon.library.brains import parse_manifest
from encephalon.library.datasets import add_arrays
from encephalon.library.library import Library
from encephalon.library.records import Reference
from encephalon.local.training.given import brain_record

__all__ = ["LARGE", "SMALL", "WIDE_LAYER", "Dense", "add_brain", "add_data"]


@dataclass(frozen=True, slots=True)
class Dense:
    """A brain of one region `net`, diagnostics/005."""

    inputs: int = 16
    outputs: int = 4
    width: int = 32
    depth: int = 2
    seed: int = 3

    @property
    def manifest(self) -> str:
        return (
            "brain: dense\n"
            f"inputs: {{x: {{datatype: FP32, shape: [-1, {self.inputs}]}}}}\n"
            "regions:\n"
            "  net:\n"
            "    network: diagnostics/005\n"
            f"    arguments: {{inputs: {self.inputs}, outputs: {self.outputs}, width: {self.width}, "
            f"depth: {self.depth}, seed: {self.seed}}}\n"
            "pathways: [{from: x, to: net.x}]\n"
            "outputs: {class: net.probabilities}\n"
        )


SMALL = Dense()
WIDE_LAYER = Dense(width=1024, depth=2)
"""A million parameters in one layer, so that its slices lie on all shards."""
LARGE = Dense(inputs=2000, outputs=10, width=2048, depth=6)
"""25 million parameters, as the bench of synchronising has them."""


async def add_brain(library: Library, brain: Dense, folder: Path) -> str:
    """Its reference with the version."""
    parse_manifest(brain.manifest)
    path = folder / "dense.yaml"
    path.write_text(brain.manifest)
    record = await brain_record(library, path)
    return str(Reference.of(record.id))


async def add_data(
    library: Library, brain: Dense, samples: int, *, test: int = 0, seed: int = 0, name: str = "points"
) -> str:
    """Points whose class a fixed linear map decides, so that they can be learned. Its reference with the version."""
    drawn = np.random.default_rng(seed)
    x = drawn.standard_normal((samples + test, brain.inputs), dtype=np.float32)
    label = (x @ drawn.standard_normal((brain.inputs, brain.outputs))).argmax(1).astype(np.int64)
    splits: dict[str, Any] = {"train": slice(0, samples)}
    if test:
        splits["test"] = slice(samples, samples + test)
    record = await add_arrays(library, name, {"x": x, "label": label}, splits)
    return str(Reference.of(record.id))
