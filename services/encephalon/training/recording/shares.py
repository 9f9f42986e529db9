"""Who got how much of each batch, as a picture: what the dynamic batch size has done."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from encephalon.training.recording.history import History
from encephalon.training.recording.series import Shares, shares_of, steps_of
from encephalon.training.recording.style import canvas, colours, empty, epoch_lines, png, prepared

__all__ = ["shares_picture"]

NAMED = 12
"""Workers that are named beside their bands; more are named below the picture."""
NARROW = 0.025
"""A band below it has no room for a name."""


def shares_picture(history: History, title: str) -> bytes:
    """A PNG: above, each worker's part of the batch, stacked to 100 %; below, how long its share took it to compute."""
    found = shares_of(history)
    figure, (above, below) = canvas(12.0, 7.5, 2, 1, sharex=True, height_ratios=[3, 2])
    figure.suptitle(title, fontsize=13, fontweight="bold", x=0.01, ha="left")
    prepared(above, "Shares of the batch", "", "% of the samples of an update")
    prepared(below, "Compute time of a share (forward and backward)", "update", "milliseconds")
    if not found.workers:
        empty(above, "no update yet")
        empty(below, "no update yet")
        return png(figure)
    shades = colours(len(found.workers))
    edges = np.append(found.version, steps_of(history).version[-1] + 1)
    _bands(above, found, edges, shades)
    _times(below, found, edges, shades)
    epoch_lines(below, steps_of(history).epochs)
    above.set_xlim(edges[0], edges[-1])
    if len(found.workers) > NAMED:
        handles, names = above.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=8, fontsize=7.5, frameon=False)
    return png(figure)


def _bands(axes: Axes, found: Shares, edges: Any, shades: list[Any]) -> None:
    part = np.column_stack([found.part, found.part[:, -1]]) * 100
    axes.stackplot(edges, part, labels=found.workers, colors=shades, step="post", edgecolor="white", linewidth=0.6)
    axes.set_ylim(0, 100)
    axes.grid(False)
    if len(found.workers) > NAMED:
        return
    top = np.cumsum(found.part[:, -1])
    for worker, share, upper, shade in zip(found.workers, found.part[:, -1], top, shades, strict=True):
        if share >= NARROW:
            axes.annotate(
                f"{worker}  {share:.0%}",
                (1.0, (upper - share / 2) * 100),
                xycoords=("axes fraction", "data"),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
                color=shade,
                fontweight="bold",
                annotation_clip=False,
            )


def _times(axes: Axes, found: Shares, edges: Any, shades: list[Any]) -> None:
    seconds = np.column_stack([found.compute_seconds, found.compute_seconds[:, -1]]) * 1000
    for row, shade in enumerate(shades):
        axes.plot(edges, seconds[row], color=shade, linewidth=1.4)
    finite = seconds[np.isfinite(seconds)]
    if not len(finite):
        empty(axes, "nothing was measured")
        return
    axes.set_ylim(0, min(float(finite.max()), 2 * float(np.percentile(finite, 98))) * 1.1)
