"""Judges: medians over the rounds, ratios taken within each round, and the bars that Encephalon is held to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from tests.bench.serving.rounds import CELLS
from tests.bench.serving.workload import Cell, Measurement

__all__ = ["BARS", "Bar", "Figure", "middle", "ratio"]

Figure = Literal["p50_ms", "p90_ms", "p99_ms", "per_second"]
SMALL, LARGE = 64, 1 << 20


@dataclass(frozen=True, slots=True)
class Bar:
    """A ratio that must be reached: of latency at most `limit`, of requests per second at least `limit`."""

    system: str
    against: str
    cell: Cell
    figure: Figure
    limit: float

    @property
    def title(self) -> str:
        what = "p50" if self.figure == "p50_ms" else "requests/s"
        return f"{self.system} / {self.against}, {what}, {self.cell.title}"

    @property
    def sign(self) -> str:
        return ">=" if self.figure == "per_second" else "<="

    def met(self, measured: float) -> bool:
        return measured >= self.limit if self.figure == "per_second" else measured <= self.limit


def _ahead_of_ray() -> list[Bar]:
    figures: dict[int, Figure] = {1: "p50_ms", 32: "per_second"}
    return [
        Bar(system, "ray", cell, figures[cell.callers], 1.0)
        for system in ("colocated", "distributed")
        for cell in CELLS
    ]


BARS = (
    Bar("colocated", "triton", Cell(SMALL, 1), "p50_ms", 1.0),
    Bar("distributed", "triton", Cell(SMALL, 1), "p50_ms", 2.0),
    Bar("distributed", "triton", Cell(LARGE, 1), "p50_ms", 1.0),
    Bar("colocated", "triton", Cell(SMALL, 32), "per_second", 1.0),
    Bar("distributed", "triton", Cell(SMALL, 32), "per_second", 0.5),
    *_ahead_of_ray(),
)


def middle(measurements: Sequence[Measurement], system: str, cell: Cell, figure: Figure) -> float | None:
    """The median over the rounds, None when the cell was never measured."""
    return _median(by_round(measurements, system, cell, figure).values())


def ratio(measurements: Sequence[Measurement], system: str, against: str, cell: Cell, figure: Figure) -> float | None:
    """The median over the rounds of this system's figure divided by the other's of the same round."""
    ours = by_round(measurements, system, cell, figure)
    theirs = by_round(measurements, against, cell, figure)
    return _median(ours[number] / theirs[number] for number in ours.keys() & theirs.keys())


def by_round(measurements: Sequence[Measurement], system: str, cell: Cell, figure: Figure) -> dict[int, float]:
    """The figure of each round in which the cell was answered at all."""
    return {
        measured.round: getattr(measured, figure)
        for measured in measurements
        if measured.system == system and measured.cell == cell and measured.requests
    }


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return median(found) if found else None
