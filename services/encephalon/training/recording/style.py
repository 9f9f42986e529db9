"""How the pictures of a run look. Needs matplotlib, and none of its global state."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

__all__ = ["ACCENTS", "INK", "canvas", "colours", "empty", "epoch_lines", "png", "prepared"]

INK: Final = "#333333"
PALE: Final = "#e4e4e4"

ACCENTS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f6ab5", "#8c564b", "#5f6b6d")
"""Told apart by most of those who see colours otherwise (after Okabe and Ito, 2008)."""

DPI: Final = 110
MOST_EPOCHS: Final = 40
"""Lines that a picture bears."""


def canvas(width: float, height: float, rows: int, columns: int, **options: Any) -> tuple[Figure, list[Axes]]:
    """A white sheet of so many inches with its axes, row by row."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.flat)


def prepared(axes: Axes, title: str, across: str, up: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK)
    axes.set_xlabel(across, fontsize=9, color=INK)
    axes.set_ylabel(up, fontsize=9, color=INK)
    axes.tick_params(labelsize=8.5, colors=INK, length=3)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    axes.grid(True, axis="y", color=PALE, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#999999")


def empty(axes: Axes, sentence: str) -> None:
    """Says why there is nothing to see."""
    axes.text(0.5, 0.5, sentence, transform=axes.transAxes, ha="center", va="center", fontsize=9, color="#888888")
    axes.set_yticks([])
    axes.set_xticks([])


def epoch_lines(axes: Axes, epochs: Sequence[tuple[float, int]]) -> None:
    """A pale line where each epoch but the first begins; none when they would cover the picture."""
    if len(epochs) <= MOST_EPOCHS:
        for version, _ in epochs[1:]:
            axes.axvline(version - 0.5, color="#d0d0d0", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)


def colours(count: int) -> list[Any]:
    """So many, alike only when there are more than nine."""
    if count <= len(ACCENTS):
        return list(ACCENTS[:count])
    from matplotlib import colormaps

    return [colormaps["turbo"](0.06 + 0.88 * at / (count - 1)) for at in range(count)]


def png(figure: Figure) -> bytes:
    """Equal figures give equal bytes."""
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": "encephalon"})
    return file.getvalue()
