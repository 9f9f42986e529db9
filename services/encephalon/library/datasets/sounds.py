"""Sounds from files: mono [samples], 16-bit integers."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import soundfile
from numpy.typing import NDArray

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import FailedPrecondition, InvalidInput
from encephalon.library.datasets.media import Facts, Unreadable

__all__ = ["SOUNDS", "Sounds"]

SOUNDS: Final = (".wav", ".flac", ".ogg", ".mp3")

MOST_FRAMES: Final = 1 << 26
"""23 minutes at 48 kHz; a header that says more is taken for damage or a bomb."""

LEAST_HZ, MOST_HZ = 100, 768_000
"""A filter between absurd rates takes any memory."""

INTEGERS: Final = ("PCM_16", "PCM_S8", "PCM_U8", "ULAW", "ALAW")
"""What fits 16 bits as it is. The others are read as floats: libsndfile does not scale those to integers."""


class Sounds:
    def __init__(self, sample_rate: int | None = None, seconds: float | None = None) -> None:
        self._rate, self._seconds = sample_rate, seconds
        self._frames = -1

    def examine(self, path: Path) -> Facts:
        with _opened(path) as file:
            if file.channels != 1:
                raise Unreadable(f"has {file.channels} channels, expected mono")
            if not 0 < file.frames <= MOST_FRAMES:
                raise Unreadable(f"has {file.frames} samples, expected 1 to {MOST_FRAMES}")
            if not LEAST_HZ <= file.samplerate <= MOST_HZ:
                raise Unreadable(f"has {file.samplerate} Hz, expected {LEAST_HZ} to {MOST_HZ}")
            if self._rate and (more := _resampled_length(file.frames, file.samplerate, self._rate)) > MOST_FRAMES:
                raise Unreadable(f"has {more} samples at {self._rate} Hz, at most {MOST_FRAMES} are taken")
            return file.frames, file.samplerate, 1

    def settle(self, name: str, facts: NDArray[np.int64]) -> pb.Modality:
        rates = Counter(facts[:, 1].tolist())
        if self._rate is None and len(rates) > 1:
            found = ", ".join(f"{rate} Hz ({count})" for rate, count in rates.most_common(5))
            raise InvalidInput(f"the sounds have several sample rates: {found}; choose one with sample_rate")
        rate = self._rate or next(iter(rates))
        if set(rates) != {rate}:
            _resampler()
        self._rate = rate
        frames = {_resampled_length(int(each), int(hz), rate) for each, hz, _ in np.unique(facts, axis=0)}
        if self._seconds is not None:
            frames = {max(1, round(self._seconds * rate))}
        self._frames = frames.pop() if len(frames) == 1 else -1
        return pb.Modality(name=name, type="audio", datatype="INT16", shape=[self._frames], sample_rate=rate)

    def decode(self, path: Path) -> NDArray[Any]:
        with _opened(path) as file:
            plain = file.subtype in INTEGERS and file.samplerate == self._rate
            samples = file.read(dtype="int16" if plain else "float32", always_2d=True)
            if samples.shape[0] == 0 or samples.shape[1] != 1:
                raise Unreadable("has no samples, or more than one channel")
            sound = samples[:, 0] if plain else self._converted(samples[:, 0], file.samplerate)
        if self._seconds is not None:
            return np.pad(sound[: self._frames], (0, max(self._frames - len(sound), 0)))
        if self._frames not in (-1, len(sound)):
            raise Unreadable(f"has {len(sound)} samples, its header promises {self._frames}")
        return sound

    def bytes_of(self, facts: NDArray[np.int64]) -> NDArray[np.int64]:
        return facts[:, 0] * 2

    def _converted(self, samples: NDArray[np.float32], rate: int) -> NDArray[np.int16]:
        wanted = self._rate or rate
        if rate != wanted:
            divisor = math.gcd(rate, wanted)
            samples = _resampler()(samples, wanted // divisor, rate // divisor)
        if not np.isfinite(samples).all():
            raise Unreadable("has samples that are no numbers")
        scaled: NDArray[np.float32] = np.clip(np.rint(samples * 32_768.0), -32_768, 32_767)
        return scaled.astype(np.int16)


def _resampled_length(frames: int, rate: int, wanted: int) -> int:
    divisor = math.gcd(rate, wanted)
    return -(-frames * (wanted // divisor) // (rate // divisor))


def _resampler() -> Any:
    try:
        from scipy.signal import resample_poly
    except ImportError as error:
        raise FailedPrecondition(
            "resampling sounds needs scipy; install it with `pip install 'encephalon[data]'`"
        ) from error
    return resample_poly


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Every error of a damaged sound as `Unreadable`."""
    try:
        with soundfile.SoundFile(path) as file:
            yield file
    except (Unreadable, FailedPrecondition):
        raise
    except soundfile.LibsndfileError as error:
        raise Unreadable(f"cannot be decoded: {error.error_string}") from None
    except Exception as error:  # noqa: BLE001 -- decoders raise whatever they stumble over
        raise Unreadable(f"cannot be decoded: {str(error) or type(error).__name__}") from None
