"""Spoken digits and noises from files: what each file is, and its samples at 8 kHz."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from encephalon.core.errors import Corrupt, FailedPrecondition, NotFound
from encephalon.library.avmnist.parameters import SAMPLE_RATE

__all__ = ["Noise", "Recording", "noises", "read", "recordings"]


class Recording(NamedTuple):
    """One spoken digit: `fsdd/recordings/{digit}_{speaker}_{take}.wav`."""

    name: str
    digit: int
    speaker: str
    take: int


class Noise(NamedTuple):
    """One clip: `esc10/{category}/{fold}-{clip}-{take}.ogg`."""

    name: str
    category: str


def recordings(names: Iterable[str]) -> list[Recording]:
    """The spoken digits among the raw files, in the order of their paths."""
    found = []
    for name in sorted(names):
        if name.startswith("fsdd/recordings/"):
            digit, speaker, index = Path(name).stem.split("_")
            found.append(Recording(name, int(digit), speaker, int(index)))
    return found


def noises(names: Iterable[str]) -> list[Noise]:
    """The noise clips among the raw files, in the order of their paths."""
    return [Noise(name, name.split("/")[1]) for name in sorted(names) if name.startswith("esc10/")]


def read(path: Path) -> NDArray[np.float32]:
    """Samples in -1 to 1 at 8 kHz, the channels' mean. Raises `NotFound` or `Corrupt`."""
    if not path.is_file():
        raise NotFound(f"the raw file {path} is missing", path=path)
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise Corrupt(f"the raw file {path} is damaged: {error}", path=path) from error
    mono: NDArray[np.float32] = samples.mean(axis=1, dtype=np.float32)
    return mono if rate == SAMPLE_RATE else _resampled(mono, rate)


def _resampled(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    try:
        from scipy.signal import resample_poly
    except ImportError as error:
        raise FailedPrecondition(
            "building AV-MNIST needs scipy; install it with `pip install 'encephalon[data]'`"
        ) from error
    divisor = np.gcd(rate, SAMPLE_RATE)
    result: NDArray[np.float32] = resample_poly(samples, SAMPLE_RATE // divisor, rate // divisor).astype(np.float32)
    return result
