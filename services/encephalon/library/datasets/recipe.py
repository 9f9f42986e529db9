"""Recipes: data sets that are built from raw files by rules of their own."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.library import avmnist
from encephalon.library.avmnist.dataset import DESCRIPTION
from encephalon.library.avmnist.parameters import SAMPLE_RATE
from encephalon.library.avmnist.progress import Progress
from encephalon.library.datasets.arrays import array_source
from encephalon.library.datasets.columns import Values
from encephalon.library.datasets.options import DataSetOptions
from encephalon.library.datasets.source import Source

__all__ = ["avmnist_modalities", "avmnist_source", "built", "is_built"]


def is_built(folder: Path) -> bool:
    return (folder / DESCRIPTION).is_file()


@asynccontextmanager
async def built(options: DataSetOptions, progress: Progress) -> AsyncIterator[Path]:
    """AV-MNIST as the options want it, in a folder that goes away with the block. Raises what `avmnist.get` raises."""
    parameters = avmnist.Parameters.from_dict({"seed": options.seed, **options.parameters})
    with tempfile.TemporaryDirectory(prefix="encephalon-avmnist-", ignore_cleanup_errors=True) as folder:
        yield await asyncio.to_thread(avmnist.get, options.raw, Path(folder) / "built", parameters, progress)


def avmnist_source(folder: Path) -> Source:
    """The built data set in `folder`, memory-mapped, every file compared with its digest. Raises `NotFound` or
    `Corrupt`, which name the file."""
    avmnist.check(folder)
    description = avmnist.describe(folder)
    pairs = {"train": avmnist.open_split(folder, "train"), "test": avmnist.open_split(folder, "test")}
    parts = [
        array_source(_columns(each), {split: slice(None)}, avmnist_modalities(each.audio.shape[1])).parts[0]
        for split, each in pairs.items()
    ]
    return Source(
        recipe="avmnist",
        modalities=avmnist_modalities(description.parameters.window),
        parts=parts,
        parameters=description.parameters.as_dict(),
        licence="CC-BY-SA-3.0 AND CC-BY-SA-4.0 AND CC-BY-3.0",
        origin=", ".join(one["home"] for one in description.attribution),
        description="AV-MNIST: handwritten digits reduced to a few principal components, and the same digits spoken "
        "in noise. " + "; ".join(f"{one['name']} by {one['by']} ({one['licence']})" for one in description.attribution),
    )


def avmnist_modalities(window: int) -> list[pb.Modality]:
    """What a pair holds: a grey picture, a sound of `window` samples, and the digit."""
    return [
        pb.Modality(name="image", type="image", datatype="UINT8", shape=[28, 28]),
        pb.Modality(name="audio", type="audio", datatype="INT16", shape=[window], sample_rate=SAMPLE_RATE),
        pb.Modality(name="label", type="label", datatype="INT64", classes=[str(digit) for digit in range(10)]),
    ]


def _columns(pairs: avmnist.Pairs) -> Mapping[str, Values]:
    columns: dict[str, Any] = {"image": pairs.images, "audio": pairs.audio, "label": pairs.labels}
    return columns
