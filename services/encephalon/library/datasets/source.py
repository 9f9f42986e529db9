"""What a data set is made from: its modalities, and the samples of each split, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Final

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import InvalidInput
from encephalon.library.datasets.columns import Values

__all__ = ["Batch", "Broken", "Part", "Source"]

LISTED: Final = 20
"""Broken files that a message names."""

Batch = Mapping[str, Values]
"""Column to values, all of the same length: one record batch."""


class Broken:
    """The files that cannot be read, found while the source is looked through."""

    def __init__(self, skip: bool = False) -> None:
        self.skip = skip
        self.count = 0
        self._listed: list[tuple[int, str]] = []
        self._lock = Lock()

    def add(self, at: int, what: str) -> None:
        """`at` orders the list; what is found by several threads comes out in the order of the source."""
        with self._lock:
            self.count += 1
            self._listed = sorted([*self._listed, (at, what)])[:LISTED]

    @property
    def listed(self) -> list[str]:
        return [what for _, what in self._listed]

    def check(self, total: int) -> None:
        """InvalidInput, naming the first of them, unless they may be left out."""
        if self.count and not self.skip:
            more = [f"and {self.count - LISTED} more"] if self.count > LISTED else []
            listed = ";\n  ".join([*self.listed, *more])
            raise InvalidInput(
                f"{self.count} of {total} samples cannot be read; repair or remove them, or leave them out with "
                f"skip_broken (--skip-broken); nothing was added:\n  {listed}",
                broken=self.count,
                total=total,
            )


@dataclass(frozen=True, slots=True)
class Part:
    """A split that is to be written."""

    name: str
    samples: int
    """How many will come, less those that prove to be broken."""
    batches: Callable[[], Iterator[Batch]]
    """Decodes as it goes; at most 256 samples and about 8 MiB at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    recipe: str
    modalities: Sequence[pb.Modality]
    parts: Sequence[Part]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """JSON values that say how it was made."""
    licence: str = ""
    origin: str = ""
    description: str = ""
    broken: Broken = field(default_factory=Broken)

    @property
    def samples(self) -> int:
        """All that were seen, the broken ones that were found so far included or not."""
        return sum(part.samples for part in self.parts)
