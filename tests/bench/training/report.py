"""What a part of the bench has measured, for a terminal, the README, and programs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

from rich.console import Console
from rich.table import Table as Shown

__all__ = ["Bar", "Part", "Table", "as_json", "machine", "markdown", "show"]


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure that must be reached; None when it could not be measured."""

    title: str
    sign: str
    limit: float
    measured: float | None

    @property
    def verdict(self) -> str:
        if self.measured is None:
            return "not measured"
        met = self.measured >= self.limit if self.sign == ">=" else self.measured <= self.limit
        return "met" if met else "missed"

    @property
    def row(self) -> list[str]:
        measured = "-" if self.measured is None else f"{self.measured:.2f}"
        return [self.title, f"{self.sign} {self.limit:g}", measured, self.verdict]


@dataclass(slots=True)
class Part:
    """`measured` is everything, for programs; `notes` are sentences."""

    name: str
    tables: list[Table] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    measured: dict[str, Any] = field(default_factory=dict)


BAR_HEAD = ("Figure", "Bar", "Measured", "Verdict")


def machine() -> str:
    """Where this was measured, in one line."""
    return (
        f"{os.cpu_count()} cores ({_processor()}), {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, torch {version('torch')}, grpcio {version('grpcio')}"
    )


def show(parts: Sequence[Part]) -> None:
    console = Console()
    for part in parts:
        for table in part.tables:
            shown = Shown(*table.head, title=table.title)
            for row in table.rows:
                shown.add_row(*row)
            console.print(shown)
        if part.bars:
            bars = Shown(*BAR_HEAD, title=f"{part.name}: bars")
            for bar in part.bars:
                bars.add_row(*bar.row)
            console.print(bars)
        for note in part.notes:
            console.print(note, highlight=False, markup=False)
    console.print(machine(), highlight=False, markup=False)


def markdown(parts: Sequence[Part]) -> str:
    return "\n".join([*(line for part in parts for line in _lines(part)), machine()])


def as_json(parts: Sequence[Part]) -> str:
    told = [{**asdict(part), "bars": [{**asdict(bar), "verdict": bar.verdict} for bar in part.bars]} for part in parts]
    return json.dumps({"machine": machine(), "parts": told}, indent=2)


def _lines(part: Part) -> Iterator[str]:
    for table in part.tables:
        yield from (f"{table.title}:", "", *_table(table.head, table.rows), "")
    if part.bars:
        yield from (*_table(BAR_HEAD, [bar.row for bar in part.bars]), "")
    for note in part.notes:
        yield from (note, "")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|---|{'---:|' * (len(head) - 1)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()
