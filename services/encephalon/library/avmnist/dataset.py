"""A built data set on disk: `{train,test}-{images,audio,labels,recordings,noises}.npy` and `dataset.json`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from encephalon.core.errors import Corrupt, NotFound
from encephalon.library.avmnist.parameters import Parameters

__all__ = ["DESCRIPTION", "FORMAT", "Description", "Pairs", "SplitName", "check", "describe", "open_split", "part_path"]

DESCRIPTION = "dataset.json"
FORMAT = 1

SplitName = Literal["train", "test"]


@dataclasses.dataclass(frozen=True, slots=True)
class Pairs:
    """A split, memory-mapped; all arrays have the same length."""

    images: NDArray[np.uint8]
    """[N, 28, 28]"""
    audio: NDArray[np.int16]
    """[N, S], 8 kHz"""
    labels: NDArray[np.int64]
    """[N], 0 to 9, in MNIST's own order"""
    recordings: NDArray[np.int16]
    """[N], places in `Description.recordings`"""
    noises: NDArray[np.int16]
    """[N], places in `Description.noises`"""

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True, slots=True)
class Description:
    """What `dataset.json` says."""

    parameters: Parameters
    statistics: dict[str, Any]
    attribution: list[dict[str, str]]
    files: dict[str, str]
    """File name to SHA-256."""
    recordings: list[str]
    """Raw files of the spoken digits, e.g. `fsdd/recordings/7_jackson_32.wav`."""
    noises: list[str]
    """Raw files of the noises, e.g. `esc10/002 - Rain/1-17367-A.ogg`."""


def part_path(folder: Path, split: str, part: str) -> Path:
    return folder / f"{split}-{part}.npy"


def describe(folder: Path) -> Description:
    """Raises `NotFound` when `folder` holds no data set, `Corrupt` when its description cannot be read."""
    path = folder / DESCRIPTION
    try:
        facts = json.loads(path.read_text())
        if facts["name"] != "av-mnist" or facts["format"] != FORMAT:
            raise Corrupt(
                f"{path} describes {facts['name']} of format {facts['format']}, expected av-mnist of format {FORMAT}"
            )
        return Description(
            Parameters.from_dict(facts["parameters"]),
            *(facts[name] for name in ("statistics", "attribution", "files", "recordings", "noises")),
        )
    except FileNotFoundError as error:
        raise NotFound(f"{folder} holds no AV-MNIST data set: {DESCRIPTION} is missing", path=path) from error
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{path} is damaged: {error!r}", path=path) from error


def open_split(folder: Path, split: SplitName) -> Pairs:
    """Maps a split into memory; nothing is read before it is used. Raises `NotFound` or `Corrupt`, which name the
    file."""
    describe(folder)
    images, audio, labels, recordings, noises = (
        _open(part_path(folder, split, part)) for part in ("images", "audio", "labels", "recordings", "noises")
    )
    return Pairs(images, audio, labels, recordings, noises)


def check(folder: Path) -> None:
    """Compares every file with its SHA-256. Raises `NotFound` or `Corrupt`, which name the first bad file."""
    for name, wanted in describe(folder).files.items():
        path = folder / name
        if not path.is_file():
            raise NotFound(f"{path} is missing; build the data set again", path=path)
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != wanted:
            raise Corrupt(f"{path} is damaged: its SHA-256 is {found}, expected {wanted}", path=path)


def _open(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise NotFound(f"{path} is missing; build the data set again", path=path) from error
    except (ValueError, EOFError, OSError) as error:
        raise Corrupt(f"{path} is damaged: {error}", path=path) from error
    return array
