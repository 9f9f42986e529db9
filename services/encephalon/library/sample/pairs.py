"""The packaged pairs on disk: one picture of all pictures, one sound of all sounds, and a list."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

from encephalon.library.avmnist.parameters import SAMPLE_RATE

__all__ = ["DATA", "Sample", "load_sample", "save_sample"]

DATA = Path(__file__).parent / "data"
COLUMNS = 20
"""Pictures side by side in `images.png`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    images: NDArray[np.uint8]
    """[N, 28, 28]"""
    audio: NDArray[np.int16]
    """[N, 8000], 8 kHz"""
    labels: NDArray[np.int64]
    """[N], 0 to 9, each equally often"""
    places: NDArray[np.int64]
    """[N], the pairs' places in the test split"""

    def __len__(self) -> int:
        return len(self.labels)


def load_sample(folder: Path = DATA) -> Sample:
    """The pairs of the package, in the order of the test split."""
    facts = json.loads((folder / "pairs.json").read_text())
    labels = np.array(facts["labels"], np.int64)
    with Image.open(folder / "images.png") as mosaic:
        pixels = np.asarray(mosaic, np.uint8)
    tiles = pixels.reshape(-1, 28, COLUMNS, 28).swapaxes(1, 2).reshape(-1, 28, 28)
    audio, _ = soundfile.read(folder / "audio.flac", dtype="int16")
    return Sample(
        tiles[: len(labels)].copy(), audio.reshape(len(labels), -1), labels, np.array(facts["places"], np.int64)
    )


def save_sample(folder: Path, sample: Sample, facts: dict[str, Any]) -> None:
    """Writes the three files; `facts` goes into `pairs.json` beside labels and places."""
    folder.mkdir(parents=True, exist_ok=True)
    tiles = np.zeros((-(-len(sample) // COLUMNS) * COLUMNS, 28, 28), np.uint8)
    tiles[: len(sample)] = sample.images
    mosaic = tiles.reshape(-1, COLUMNS, 28, 28).swapaxes(1, 2).reshape(-1, COLUMNS * 28)
    Image.fromarray(mosaic).save(folder / "images.png", optimize=True)
    soundfile.write(
        folder / "audio.flac", sample.audio.reshape(-1), SAMPLE_RATE, subtype="PCM_16", compression_level=1.0
    )
    listed = {**facts, "places": sample.places.tolist(), "labels": sample.labels.tolist()}
    (folder / "pairs.json").write_text(json.dumps(listed, indent=1) + "\n")
