"""What may be chosen about an AV-MNIST data set, and the values that may not."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from encephalon.core.errors import InvalidInput

__all__ = ["NOISE_CLASSES", "SAMPLE_RATE", "TEST_RECORDINGS", "Parameters"]

SAMPLE_RATE = 8_000
"""Hz; the rate of the Free Spoken Digit Dataset."""

TEST_RECORDINGS = range(40, 50)
"""Of every speaker and digit, the recordings of the test split (the audio-visual recipe; upstream's own test is
0-4)."""

NOISE_CLASSES = (
    "001 - Dog bark",
    "002 - Rain",
    "003 - Sea waves",
    "004 - Baby cry",
    "005 - Clock tick",
    "006 - Person sneeze",
    "007 - Helicopter",
    "008 - Chainsaw",
    "009 - Rooster",
    "010 - Fire crackling",
)
"""The classes of ESC-10, as its folders are named."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Everything that decides the bytes of a data set beside the raw files. Raises `InvalidInput` for a value out of
    range."""

    seed: int = 0
    """Which recording, which noise and which place each pair draws."""

    snr_db: float = -6.0
    """Power of the spoken digit over power of the noise, in dB; the digit measured over its recording, the noise over
    the window."""

    rank: int = 3
    """Principal components that a picture keeps; 3 is what the paper's "75 % of the energy removed" comes to."""

    train_pairs: int = 60_000
    """The first so many pictures of MNIST's training file."""

    test_pairs: int = 10_000
    """The first so many pictures of MNIST's test file."""

    window_seconds: float = 1.0
    """Length of every sound; 20 of the 3,000 spoken digits are longer than one second and lose their ends."""

    test_noise: tuple[str, ...] = ("003 - Sea waves", "006 - Person sneeze", "009 - Rooster")
    """Noise classes that only the test hears: every third one, so that nobody picked them by how hard they are."""

    def __post_init__(self) -> None:
        self._check("seed", 0 <= self.seed < 2**63, "an integer from 0 to 2**63 - 1")
        self._check("snr_db", math.isfinite(self.snr_db) and abs(self.snr_db) <= 60, "a number of dB from -60 to 60")
        self._check("rank", 1 <= self.rank <= 784, "1 to 784 components")
        self._check("train_pairs", 1 <= self.train_pairs <= 60_000, "1 to 60000 pairs")
        self._check("test_pairs", 1 <= self.test_pairs <= 10_000, "1 to 10000 pairs")
        self._check("window_seconds", 0.1 <= self.window_seconds <= 5.0, "0.1 to 5 seconds")
        known = set(self.test_noise) <= set(NOISE_CLASSES) and len(set(self.test_noise)) == len(self.test_noise)
        fits = 0 < len(self.test_noise) < len(NOISE_CLASSES)
        self._check("test_noise", known and fits, f"at least one and not all of {', '.join(NOISE_CLASSES)}")

    @property
    def window(self) -> int:
        """Samples in every sound."""
        return round(self.window_seconds * SAMPLE_RATE)

    @property
    def train_noise(self) -> tuple[str, ...]:
        return tuple(name for name in NOISE_CLASSES if name not in self.test_noise)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, in a fixed order."""
        return {**dataclasses.asdict(self), "test_noise": list(self.test_noise)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Parameters:
        known = {field.name for field in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise InvalidInput(
                    f"AV-MNIST has no parameter '{name}'; it has {', '.join(sorted(known))}", parameter=name
                )
        chosen = dict(values)
        if "test_noise" in chosen:
            chosen["test_noise"] = tuple(chosen["test_noise"])
        return cls(**chosen)

    def _check(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise InvalidInput(f"{name} is {getattr(self, name)!r}, expected {expected}", parameter=name)
