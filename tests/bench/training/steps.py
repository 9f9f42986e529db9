"""What the history of a run tells of its steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from encephalon.training.recording.history import History
from tests.bench.training.workload import Steps

__all__ = ["epochs_of", "shares_of", "steps_of"]


def steps_of(history: History, skip: int) -> Steps:
    """Without the first ones; a step lasts from the decision before it to its own."""
    steps = history.steps
    ends = [step.at_seconds for step in steps]
    kept = range(max(skip, 1), len(steps))
    return Steps(
        [ends[at] - ends[at - 1] for at in kept],
        [max(steps[at].compute_seconds.values(), default=0.0) for at in kept],
    )


def epochs_of(history: History) -> Mapping[int, float]:
    """Seconds by epoch: from the last decision of the epoch before to its own last one."""
    ends: dict[int, float] = {}
    begins: dict[int, float] = {}
    for step in history.steps:
        begins.setdefault(step.epoch, step.at_seconds - step.seconds)
        ends[step.epoch] = step.at_seconds
    return {epoch: ends[epoch] - ends.get(epoch - 1, begins[epoch]) for epoch in ends}


def shares_of(history: History) -> Mapping[int, Sequence[Mapping[str, int]]]:
    """Shares by worker of each step, by epoch."""
    found: dict[int, list[Mapping[str, int]]] = defaultdict(list)
    for step in history.steps:
        found[step.epoch].append(dict(step.shares))
    return found
