"""The orders of a list. What has no such figure comes last, whichever the direction."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import InvalidInput

__all__ = ["Order", "Position", "Value"]

Value = str | int | float
Position = tuple[int, Value, str]
"""Of a record in a list: whether it has the figure, the figure, and its key, which decides between equals."""


def _created(summary: pb.Summary) -> int:
    created = summary.created_time
    return created.seconds * 1_000_000_000 + created.nanos


_VALUES: Final[Mapping[str, Callable[[pb.Summary], Value]]] = MappingProxyType(
    {
        "name": lambda summary: summary.id.name,
        "created": _created,
        "size": lambda summary: summary.size,
        "version": lambda summary: summary.id.version,
    }
)
_METRIC: Final = "metric:"


@dataclass(frozen=True, slots=True)
class Order:
    word: str
    """"name", "created", "size", "version" or "metric:NAME"."""
    descending: bool

    @classmethod
    def parse(cls, text: str) -> Order | None:
        """Reads `created`, `-created`, `-metric:accuracy.test`; None for "", the order of the store.

        InvalidInput suggests the nearest word.
        """
        word = text.strip().removeprefix("-")
        if not text.strip():
            return None
        if word not in _VALUES and not (word.startswith(_METRIC) and word != _METRIC):
            raise InvalidInput(f"a list cannot be sorted by '{text[:60]}'; {_hint(word)}", sort=text[:60])
        return cls(word, text.strip().startswith("-"))

    def position(self) -> Callable[[pb.Summary, str], Position]:
        """A function from a summary and its key to its position."""
        present, absent = (1, 0) if self.descending else (0, 1)
        if not self.word.startswith(_METRIC):
            value = _VALUES[self.word]
            return lambda summary, key: (present, value(summary), key)
        metric = self.word.removeprefix(_METRIC)

        def of_metric(summary: pb.Summary, key: str) -> Position:
            figure = summary.metrics.get(metric, math.nan)
            return (absent, 0, key) if math.isnan(figure) else (present, figure, key)

        return of_metric

    def holds(self, value: object) -> bool:
        """Whether a value may be one of this order's."""
        if self.word == "name":
            return isinstance(value, str)
        return isinstance(value, int | float) and not isinstance(value, bool)


def _hint(word: str) -> str:
    near = difflib.get_close_matches(word.lower(), [*_VALUES, _METRIC], n=1)
    if near and near[0] != _METRIC:
        return f"did you mean '{near[0]}'?"
    if near or "." in word:
        return "by a metric it is 'metric:NAME', as in metric:accuracy.test"
    return f"there are {', '.join(_VALUES)} and metric:NAME, each with '-' before it for the highest first"
