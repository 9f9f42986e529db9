"""Mean, deviation, extremes and class counts, gathered while the samples go by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.library.datasets.columns import Values

__all__ = ["Statistics"]

CHUNK: Final = 1 << 20
"""Numbers converted to float64 at a time: 8 MiB."""


class Statistics:
    """Of one split. `as_dict` names them `<modality>.mean`, `.std`, `.min`, `.max`, and `<label>.count.<class>`."""

    def __init__(self, modalities: Sequence[pb.Modality]) -> None:
        self._numbers = {one.name: _Numbers() for one in modalities if one.type != "label" and one.datatype != "BYTES"}
        self._counts = {one.name: np.zeros(len(one.classes), np.int64) for one in modalities if one.type == "label"}
        self._classes = {one.name: list(one.classes) for one in modalities if one.type == "label"}

    def add(self, name: str, values: Values) -> None:
        if name in self._numbers:
            arrays: Sequence[Any] = [values] if isinstance(values, np.ndarray) else values
            for array in arrays:
                self._numbers[name].add(np.asarray(array).reshape(-1))
        elif name in self._counts:
            self._counts[name] += np.bincount(np.asarray(values), minlength=len(self._counts[name]))

    def as_dict(self) -> dict[str, float]:
        found = {f"{name}.{key}": value for name, numbers in self._numbers.items() for key, value in numbers.all()}
        for name, counts in self._counts.items():
            named = zip(self._classes[name], counts, strict=True)
            found.update({f"{name}.count.{each}": float(count) for each, count in named})
        return found


class _Numbers:
    """Mean and squared deviations joined chunk by chunk (Chan, Golub, LeVeque 1979): one pass, no cancellation."""

    def __init__(self) -> None:
        self._count, self._mean, self._deviation = 0, 0.0, 0.0
        self._least, self._most = math.inf, -math.inf

    def add(self, flat: NDArray[Any]) -> None:
        for start in range(0, flat.size, CHUNK):
            part = flat[start : start + CHUNK].astype(np.float64)
            if flat.dtype.kind not in "iub":
                # Infinities and what is no number would be all that is left of the rest.
                part = part[np.isfinite(part)]
            if not part.size:
                continue
            mean = float(part.mean())
            total, shift = self._count + part.size, mean - self._mean
            self._deviation += float(np.square(part - mean).sum()) + shift**2 * self._count * part.size / total
            self._mean += shift * part.size / total
            self._count = total
            self._least, self._most = min(self._least, float(part.min())), max(self._most, float(part.max()))

    def all(self) -> list[tuple[str, float]]:
        if not self._count:
            return []
        std = math.sqrt(self._deviation / self._count)
        found = {"mean": self._mean, "std": std, "min": self._least, "max": self._most}
        # Nine digits say enough, and do not depend on the order in which a processor adds.
        return [(name, float(f"{value:.9g}")) for name, value in found.items()]
