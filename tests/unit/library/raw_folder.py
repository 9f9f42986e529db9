"""A raw folder in AV-MNIST's layout, small and made up."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from encephalon.library.avmnist.parameters import NOISE_CLASSES

__all__ = ["make_raw_folder"]

TRAIN, TEST = 120, 40


def make_raw_folder(folder: Path, takes: Sequence[int] = (0, 39, 40, 49)) -> Path:
    random = np.random.default_rng(5)
    (folder / "mnist").mkdir(parents=True)
    for prefix, count in (("train", TRAIN), ("t10k", TEST)):
        pictures = random.integers(0, 256, (count, 28, 28), np.uint8)
        labels = random.permutation(np.arange(count) % 10).astype(np.uint8)
        write_idx(folder / "mnist" / f"{prefix}-images-idx3-ubyte.gz", pictures)
        write_idx(folder / "mnist" / f"{prefix}-labels-idx1-ubyte.gz", labels)
    (folder / "fsdd" / "recordings").mkdir(parents=True)
    for digit in range(10):
        for take in takes:
            spoken = 0.3 * random.standard_normal(2_000 + 100 * digit)
            soundfile.write(folder / "fsdd" / "recordings" / f"{digit}_ada_{take}.wav", spoken, 8_000, subtype="PCM_16")
    for category in NOISE_CLASSES:
        (folder / "esc10" / category).mkdir(parents=True)
        noise = 0.1 * random.standard_normal(44_100)
        soundfile.write(folder / "esc10" / category / "1-1-A.ogg", noise, 44_100, format="OGG", subtype="VORBIS")
    return folder


def write_idx(path: Path, array: np.ndarray) -> None:
    header = b"\x00\x00\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes(), mtime=0))
