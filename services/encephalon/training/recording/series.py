"""The columns of a history, as curves need them. Knows no picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encephalon.api.training.v1.training_pb2 import StepMetrics
from encephalon.training.recording.history import History

__all__ = ["Shares", "Steps", "shares_of", "smoothed", "steps_of"]

Column = NDArray[np.float64]

BINS = 400
"""Points of a picture of shares; more cannot be told apart."""


@dataclass(frozen=True, slots=True)
class Steps:
    """One value per update, each float64 [updates]; not a number where nothing was measured."""

    version: Column
    loss: Column
    gradient_norm: Column
    learning_rate: Column
    seconds: Column
    samples_per_second: Column
    skipped: NDArray[np.bool_]
    epochs: list[tuple[float, int]]
    """The first update of each epoch, and the epoch."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Of every worker, for runs of updates that begin at `version` [bins]."""

    workers: list[str]
    version: Column
    part: Column
    """Of the samples of these updates, 0 to 1, [workers, bins]."""
    compute_seconds: Column
    """Mean per share, [workers, bins]; not a number where a worker had none."""


def steps_of(history: History) -> Steps:
    steps = history.steps
    return Steps(
        version=_column([step.version for step in steps]),
        loss=_column([step.loss for step in steps]),
        gradient_norm=_column([step.gradient_norm or np.nan for step in steps]),
        learning_rate=_column([step.learning_rate for step in steps]),
        seconds=_column([step.seconds for step in steps]),
        samples_per_second=_throughput(steps),
        skipped=np.array([step.skipped for step in steps], bool),
        epochs=_epochs(steps),
    )


def smoothed(values: Column, *, median: bool = False) -> Column:
    """The mean (or median, which spikes do not move) of the values around each, a thirtieth of them; so it does not lag
    behind. What is not finite is left out."""
    if not len(values):
        return values
    reach = min(50, max(2, len(values) // 60))
    padded = np.pad(np.where(np.isfinite(values), values, np.nan), reach, constant_values=np.nan)
    around = np.ma.masked_invalid(np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1))
    middle = np.ma.median(around, axis=1) if median else around.mean(axis=1)  # type: ignore[no-untyped-call]
    return np.asarray(np.ma.filled(middle, np.nan), np.float64)


def shares_of(history: History, bins: int = BINS) -> Shares:
    """Where an update has the share of one worker only (ssp, async), several updates are taken together."""
    steps = [step for step in history.steps if step.shares]
    workers = sorted({worker for step in steps for worker in step.shares}, key=_natural)
    alone = sum(len(step.shares) == 1 for step in steps) > len(steps) / 2 and len(workers) > 1
    width = max(-(-len(steps) // bins), 8 * len(workers) if alone else 1)
    groups = [steps[start : start + width] for start in range(0, len(steps), width)]
    if len(groups) > 1 and len(groups[-1]) < width:  # a few updates tell no shares
        groups[-2:] = [groups[-2] + groups[-1]]
    part = np.zeros((len(workers), len(groups)))
    seconds = np.full((len(workers), len(groups)), np.nan)
    for at, group in enumerate(groups):
        for row, worker in enumerate(workers):
            part[row, at] = sum(step.shares.get(worker, 0) for step in group)
            taken = [step.compute_seconds[worker] for step in group if worker in step.compute_seconds]
            if taken:
                seconds[row, at] = sum(taken) / len(taken)
    part /= np.maximum(part.sum(axis=0), 1)
    return Shares(workers, _column([group[0].version for group in groups]), part, seconds)


def _throughput(steps: list[StepMetrics]) -> Column:
    """By the clock of the run: updates of several workers overlap, and a long history lacks some updates."""
    found, before = [], StepMetrics()
    for step in steps:
        passed, updates = step.at_seconds - before.at_seconds, step.version - before.version
        if not before.version or passed <= 0 or updates <= 0:
            passed, updates = step.seconds, 1
        found.append(step.samples * updates / passed if passed > 0 else np.nan)
        before = step
    return _column(found)


def _epochs(steps: list[StepMetrics]) -> list[tuple[float, int]]:
    found: dict[int, float] = {}
    for step in steps:
        found.setdefault(step.epoch, float(step.version))
    return [(version, epoch) for epoch, version in found.items()]


def _natural(name: str) -> tuple[str, int, str]:
    """worker-2 before worker-10."""
    head = name.rstrip("0123456789")
    return head, int(name[len(head) :] or -1), name


def _column(values: list[float] | list[int]) -> Column:
    return np.array(values, np.float64)
