"""What a run has come to, in figures. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

from encephalon.api.parameter_server.v1.parameter_server_pb2 import Checkpoint
from encephalon.api.training.v1.training_pb2 import Evaluation, RunState
from encephalon.training.recording.history import History
from encephalon.training.runs import RunSettings

__all__ = ["judgements", "kept", "main_output", "quality", "totals"]


def kept(settings: RunSettings, state: RunState) -> Checkpoint:
    """What the networks are made of: the last checkpoint; of a run that ends for want of patience that with the lowest
    validation loss."""
    return state.best if settings.patience is not None and state.best.pieces else state.checkpoint


def judgements(settings: RunSettings, state: RunState) -> list[Evaluation]:
    """Of the version that is `kept`: on the validation samples, on the test split, as far as there are such."""
    version = kept(settings, state).version
    found = [each for each in state.evaluations if each.version == version and each.purpose != "test"]
    if not found and state.HasField("best_evaluation") and state.best_evaluation.version == version:
        found = [state.best_evaluation]
    tested = [state.test] if state.HasField("test") and state.test.version == version else []
    return [*found[-1:], *tested]


def main_output(settings: RunSettings, outputs: Collection[str]) -> str:
    """The output whose loss weighs most, of those that were judged; "" when there are none."""
    return max(sorted(outputs), key=lambda output: settings.targets.get(output, 0.0), default="")


def quality(settings: RunSettings, found: list[Evaluation], outputs: Collection[str] | None = None) -> dict[str, float]:
    """`accuracy.PURPOSE` (0 to 1) of the main output, `accuracy.PURPOSE.OUTPUT` of each when there are several, and
    `loss.PURPOSE`; with `outputs`, the accuracies of only these and no loss."""
    return dict(_quality(settings, found, outputs))


def totals(settings: RunSettings, state: RunState, history: History) -> dict[str, float]:
    """Of the run's record: `quality` and `loss`, `steps`, `samples`, `seconds`, `samples_per_second`, `bytes`."""
    steps = history.steps
    found = quality(settings, judgements(settings, state))
    losses = [
        *(found[name] for name in ("loss.test", "loss.validation") if name in found),
        *(s.loss for s in steps[-1:]),
    ]
    figures = {
        "steps": max(state.checkpoint.version, *(step.version for step in steps[-1:]), 0),
        "samples": state.samples,
        "seconds": state.seconds,
        "bytes": state.bytes,
        "workers": len({worker for step in steps for worker in step.shares}),
    }
    if state.seconds > 0:
        figures["samples_per_second"] = state.samples / state.seconds
    if losses and math.isfinite(losses[0]):
        figures["loss"] = losses[0]
    return found | {name: float(value) for name, value in figures.items()}


def _quality(
    settings: RunSettings, found: list[Evaluation], outputs: Collection[str] | None
) -> Iterator[tuple[str, float]]:
    for each in found:
        judged = {name: share for name, share in each.accuracy.items() if outputs is None or name in outputs}
        if judged:
            yield f"accuracy.{each.purpose}", judged[main_output(settings, judged)]
        for name, share in judged.items() if len(judged) > 1 else ():
            yield f"accuracy.{each.purpose}.{name}", share
        if outputs is None and math.isfinite(each.loss):
            yield f"loss.{each.purpose}", each.loss
