"""A bound on a measured figure: `accuracy.test>=0.5`."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from encephalon.core.errors import InvalidInput

__all__ = ["MetricCondition"]

_COMPARISONS: Final[Mapping[str, Callable[[float, float], bool]]] = MappingProxyType(
    {
        ">=": operator.ge,
        "<=": operator.le,
        ">": operator.gt,
        "<": operator.lt,
        "=": operator.eq,
        "!=": operator.ne,
    }
)
_WORDS: Final = re.compile(r"\s*([^<>=!\s]+)\s*(>=|<=|==|!=|=|>|<)\s*(\S+)\s*")


@dataclass(frozen=True, slots=True)
class MetricCondition:
    """Holds for a record that has the metric and whose figure compares so; never for one without it, nor for a figure
    that is not a number.
    """

    name: str
    comparison: str
    """">=", "<=", ">", "<", "=" or "!="."""
    bound: float

    def __post_init__(self) -> None:
        """Raises InvalidInput."""
        if not self.name:
            raise InvalidInput("a condition on a metric needs the metric's name, as in accuracy.test>=0.5")
        if self.comparison not in _COMPARISONS:
            raise InvalidInput(f"'{self.comparison[:20]}' compares nothing; there are {' '.join(_COMPARISONS)}")
        if math.isnan(self.bound):
            raise InvalidInput(f"the metric '{self.name}' cannot be compared to what is not a number; give a figure")

    @classmethod
    def parse(cls, text: str) -> MetricCondition:
        """Reads `accuracy.test>=0.5`. InvalidInput shows how it is written."""
        found = _WORDS.fullmatch(text)
        try:
            if found is None:
                raise ValueError
            name, comparison, bound = found.groups()
            return cls(name, "=" if comparison == "==" else comparison, float(bound))
        except ValueError:
            raise InvalidInput(
                f"'{text[:80]}' is no condition on a metric; write its name, one of {' '.join(_COMPARISONS)} and a "
                "number, as in accuracy.test>=0.5"
            ) from None

    def __str__(self) -> str:
        return f"{self.name}{self.comparison}{self.bound!r}"

    @property
    def holds(self) -> Callable[[float], bool]:
        """Whether a figure fulfils it."""
        compare, bound = _COMPARISONS[self.comparison], self.bound
        if self.comparison == "!=":
            return lambda figure: figure != bound and not math.isnan(figure)
        return lambda figure: compare(figure, bound)
