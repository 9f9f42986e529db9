"""How a run went, as one picture: loss, accuracy, throughput, and what the optimiser saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from encephalon.api.training.v1.training_pb2 import Evaluation
from encephalon.training.recording.history import History
from encephalon.training.recording.series import Column, Steps, smoothed, steps_of
from encephalon.training.recording.style import ACCENTS, canvas, colours, empty, epoch_lines, png, prepared

__all__ = ["curves"]

BLUE, ORANGE, GREEN = ACCENTS[:3]
UPDATE = "update"


def curves(history: History, title: str, test: Evaluation | None = None) -> bytes:
    """A PNG of six curves over updates. test: the judgement at the end, if there was one."""
    steps = steps_of(history)
    judged = [each for each in history.evaluations if each.purpose != "test"]
    figure, axes = canvas(12.5, 10.5, 3, 2)
    figure.suptitle(title, fontsize=13, fontweight="bold", x=0.01, ha="left")
    _loss(axes[0], steps, judged, test)
    _accuracy(axes[1], judged, test)
    _curve(axes[2], steps.version, steps.samples_per_second, "Throughput", "samples per second", GREEN)
    _curve(axes[3], steps.version, steps.seconds * 1000, "Time of an update", "milliseconds", GREEN)
    _curve(
        axes[4], steps.version, steps.gradient_norm, "Norm of the gradient", "norm, before clipping", ORANGE, log=True
    )
    _rate(axes[5], steps)
    last = max([2.0, *steps.version[-1:], *([test.version] if test is not None else [])])
    for each in axes:
        if len(steps.version):
            each.set_xlim(min(1.0, steps.version[0]), last)
            epoch_lines(each, steps.epochs)
    return png(figure)


def _loss(axes: Axes, steps: Steps, judged: Sequence[Evaluation], test: Evaluation | None) -> None:
    prepared(axes, "Loss", UPDATE, "mean per sample")
    if not np.isfinite(steps.loss).any():
        empty(axes, "no update yet")
        return
    axes.plot(steps.version, steps.loss, color=BLUE, **_single(steps.version))
    axes.plot(steps.version, smoothed(steps.loss), color=BLUE, linewidth=1.8, label="training, smoothed")
    if judged:
        losses = [each.loss for each in judged]
        axes.plot(
            [each.version for each in judged],
            losses,
            "o-",
            color=ORANGE,
            markersize=4,
            clip_on=False,
            label="validation",
        )
    if test is not None:
        axes.plot([test.version], [test.loss], "*", color=GREEN, markersize=12, label="test", clip_on=False)
    if steps.skipped.any():
        at = steps.version[steps.skipped]
        edge = axes.get_xaxis_transform()
        axes.plot(at, np.full(len(at), 0.02), "x", color="#c00000", transform=edge, label="skipped: not finite")
    _fitted(axes, steps.loss)
    axes.legend(fontsize=8.5, frameon=False)


def _accuracy(axes: Axes, judged: Sequence[Evaluation], test: Evaluation | None) -> None:
    prepared(axes, "Accuracy", UPDATE, "right, in %")
    every = [*judged, *([test] if test is not None else [])]
    outputs = sorted({output for each in every for output in each.accuracy})
    if not outputs:
        empty(axes, "nothing was judged by classes")
        return
    for output, colour in zip(outputs, colours(len(outputs)), strict=True):
        found = [(each.version, each.accuracy[output] * 100) for each in judged if output in each.accuracy]
        name = "validation" if len(outputs) == 1 else output
        if found:
            axes.plot(*zip(*found, strict=True), "o-", color=colour, markersize=4, clip_on=False, label=name)
        if test is not None and output in test.accuracy:
            point = test.accuracy[output] * 100
            axes.plot(
                [test.version], [point], "*", color=colour, markersize=12, clip_on=False, label=f"test {point:.1f} %"
            )
    axes.legend(fontsize=8.5, frameon=False)


def _rate(axes: Axes, steps: Steps) -> None:
    prepared(axes, "Learning rate", UPDATE, "rate")
    if not len(steps.version):
        empty(axes, "no update yet")
        return
    axes.plot(steps.version, steps.learning_rate, color=ORANGE, linewidth=1.5)
    axes.set_ylim(0, max(1e-12, float(np.nanmax(steps.learning_rate))) * 1.1)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))


def _curve(axes: Axes, x: Column, values: Column, title: str, unit: str, colour: str, *, log: bool = False) -> None:
    prepared(axes, title, UPDATE, unit)
    finite = values[np.isfinite(values)]
    if not len(finite):
        empty(axes, "nothing was measured")
        return
    axes.plot(x, values, color=colour, **_single(x))
    axes.plot(x, smoothed(values, median=not log), color=colour, linewidth=1.8)
    if log and finite.min() > 0 and finite.max() / finite.min() > 30:
        axes.set_yscale("log")
    else:
        _fitted(axes, values)
        axes.set_ylim(bottom=0)


def _single(x: Column) -> dict[str, Any]:
    """How what was measured is drawn: pale behind its mean; as points where there are too few for a line."""
    return {"alpha": 0.25, "linewidth": 0.9} if len(x) > 3 else {"marker": "o", "linewidth": 0, "markersize": 5}


def _fitted(axes: Axes, values: Column) -> None:
    """One outlier must not press all others flat; it leaves the picture at the top."""
    finite = values[np.isfinite(values)]
    if len(finite) > 20 and finite.max() > 3 * np.percentile(finite, 98):
        axes.set_ylim(top=1.3 * float(np.percentile(finite, 98)))
