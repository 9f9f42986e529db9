"""A spoken digit somewhere in a window of noise, at a stated ratio of their powers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["excerpt", "mix", "trimmed"]

DRAWS = 4
"""Places tried for a noise excerpt; the loudest wins, so that the pauses inside a clip are not blown up to the wanted
power."""

SILENCE = 1e-3
"""Of a clip's peak (-60 dB): what lies below it at both ends is padding (ESC-10 pads short clips to five seconds)."""

FULL_SCALE = 32_767
EPSILON = 1e-12


def trimmed(clip: NDArray[np.float32]) -> NDArray[np.float32]:
    """The clip without the silence at its ends; never empty unless the clip is."""
    loud = np.flatnonzero(np.abs(clip) > SILENCE * np.abs(clip).max(initial=0))
    return clip[loud[0] : loud[-1] + 1] if loud.size else clip


def excerpt(clip: NDArray[np.float32], window: int, random: np.random.Generator) -> NDArray[np.float32]:
    """A drawn part of `clip`, `window` samples long; a clip that is too short is repeated."""
    repeated = np.tile(clip, -(-window // len(clip)) + 1) if len(clip) < window else clip
    starts = random.integers(len(repeated) - window + 1, size=DRAWS)
    parts = [repeated[start : start + window] for start in starts]
    return max(parts, key=_power)


def mix(
    speech: NDArray[np.float32], noise: NDArray[np.float32], snr_db: float, random: np.random.Generator
) -> NDArray[np.int16]:
    """Puts `speech` at a drawn place of `noise` [window], at `snr_db`; the level of the speech stays unless the sum
    would clip.

    Speech longer than the window keeps its middle. Returns int16 [window].
    """
    window = len(noise)
    surplus = max(len(speech) - window, 0) // 2
    spoken = speech[surplus : surplus + window]
    start = random.integers(window - len(spoken) + 1)
    gain = np.sqrt(_power(spoken) / (_power(noise) + EPSILON) / 10 ** (snr_db / 10))
    mixed = noise.astype(np.float64) * gain
    mixed[start : start + len(spoken)] += spoken
    mixed *= FULL_SCALE / max(1.0, np.abs(mixed).max())
    result: NDArray[np.int16] = np.rint(mixed).astype(np.int16)
    return result


def _power(samples: NDArray[np.float32]) -> float:
    return float(np.mean(np.square(samples, dtype=np.float64)))
