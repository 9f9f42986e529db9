"""Shows what was measured: a table on the terminal, Markdown for the README, JSON for programs."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.serving.rounds import CELLS
from tests.bench.serving.verdict import BARS, Bar, Figure, middle, ratio
from tests.bench.serving.workload import Cell, Measurement

__all__ = ["as_json", "machine", "markdown", "show", "unsound"]

REFERENCE = "triton"
FIGURES: Mapping[Figure, str] = {"p50_ms": "p50 ms", "p90_ms": "p90 ms", "p99_ms": "p99 ms", "per_second": "requests/s"}
Titles = Mapping[str, str]


def machine(versions: Sequence[str]) -> str:
    """Where this was measured, in one line."""
    client = f"tritonclient {version('tritonclient')}, grpcio {version('grpcio')}"
    return (
        f"{os.cpu_count()} cores ({_processor()}), {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, {client}; {', '.join(versions)}"
    )


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def unsound(measurements: Sequence[Measurement]) -> list[str]:
    """One sentence for each cell with failed calls or wrong sums."""
    return [
        f"{one.system}, {one.cell.title}, round {one.round}: {one.failed} failed, {one.wrong} wrong"
        for one in measurements
        if one.failed or one.wrong or not one.requests
    ]


def rows(measurements: Sequence[Measurement], titles: Titles) -> Iterator[list[str]]:
    """A row per cell and figure: its title, then each system's median with its ratio to the reference."""
    for cell in CELLS:
        for figure, name in FIGURES.items():
            yield [f"{cell.title}: {name}", *(_value(measurements, system, cell, figure) for system in titles)]


def _value(measurements: Sequence[Measurement], system: str, cell: Cell, figure: Figure) -> str:
    value = middle(measurements, system, cell, figure)
    if value is None:
        return "-"
    shown = f"{value:,.0f}" if figure == "per_second" else f"{value:.2f}"
    relative = None if system == REFERENCE else ratio(measurements, system, REFERENCE, cell, figure)
    return shown if relative is None else f"{shown} ({relative:.2f}x)"


def verdicts(measurements: Sequence[Measurement]) -> Iterator[tuple[Bar, float | None, str]]:
    """Every bar, the ratio measured, and met, missed or not measured."""
    for bar in BARS:
        measured = ratio(measurements, bar.system, bar.against, bar.cell, bar.figure)
        yield bar, measured, "not measured" if measured is None else "met" if bar.met(measured) else "missed"


def bar_rows(measurements: Sequence[Measurement]) -> Iterator[list[str]]:
    for bar, measured, verdict in verdicts(measurements):
        yield [bar.title, f"{bar.sign} {bar.limit}", "-" if measured is None else f"{measured:.2f}", verdict]


def show(measurements: Sequence[Measurement], titles: Titles, where: str) -> None:
    """Prints tables for a terminal."""
    console = Console()
    figures = Table("", *titles.values(), title="Medians over the rounds (ratio to Triton's ensemble)")
    for number, row in enumerate(rows(measurements, titles)):
        figures.add_row(*row, end_section=number % len(FIGURES) == len(FIGURES) - 1)
    bars = Table("Ratio", "Bar", "Measured", "Verdict", title="Bars")
    for row in bar_rows(measurements):
        bars.add_row(*row)
    console.print(figures, bars, where)


def markdown(measurements: Sequence[Measurement], titles: Titles, where: str) -> str:
    """The README's tables."""
    rounds = max((one.round for one in measurements), default=0)
    return "\n".join(
        [
            *_markdown_table(["", *titles.values()], rows(measurements, titles)),
            "",
            *_markdown_table(["Ratio", "Bar", "Measured", "Verdict"], bar_rows(measurements)),
            "",
            f"Medians over {rounds} rounds, in brackets the ratio to Triton's ensemble. {where}",
        ]
    )


def _markdown_table(head: Sequence[str], body: Iterator[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|---|{'---:|' * (len(head) - 1)}"
    yield from (f"| {' | '.join(row)} |" for row in body)


def as_json(measurements: Sequence[Measurement], where: str) -> dict[str, Any]:
    """All that was measured and judged, for programs."""
    bars = [
        {"bar": bar.title, "limit": bar.limit, "sign": bar.sign, "measured": measured, "verdict": verdict}
        for bar, measured, verdict in verdicts(measurements)
    ]
    return {"machine": where, "measurements": [measured.as_dict() for measured in measurements], "bars": bars}
