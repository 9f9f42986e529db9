"""A run that is over, in rows that people read: how it was judged, and what each worker has done. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from encephalon.api.training.v1.training_pb2 import Evaluation, RunState
from encephalon.training.recording.figures import judgements, main_output, totals
from encephalon.training.recording.history import History
from encephalon.training.runs import RunSettings

__all__ = ["JudgedRow", "Report", "WorkerRow", "report"]


@dataclass(frozen=True, slots=True)
class JudgedRow:
    """One evaluation. `kept`: of the version that the networks are made of."""

    purpose: str
    epoch: int
    step: int
    loss: float
    accuracy: float | None
    """0 to 1, of the main output; None where no output has classes."""
    kept: bool


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One worker. `part`: of all samples, 0 to 1; `first_share` and `last_share`: of the batch, of the first and the
    last update in which it took part."""

    worker: str
    samples: int
    part: float
    first_share: float
    last_share: float
    samples_per_second: float
    """While it computed."""
    slowness: float
    """Median compute time of its shares over that of all workers; above 1, the others wait for it."""


@dataclass(frozen=True, slots=True)
class Report:
    run: str
    state: str
    """As a word: "succeeded", "failed", "stopped", ..."""
    sentence: str
    figures: Mapping[str, float]
    """As the run's record has them: steps, samples, seconds, samples_per_second, bytes, loss, accuracy.test, ..."""
    judged: list[JudgedRow]
    workers: list[WorkerRow]
    skipped: int
    """Updates whose gradient was not finite."""
    made: Mapping[str, str]
    """References into the library: networks by region, "brain", "run"."""


def report(settings: RunSettings, state: RunState, history: History) -> Report:
    tested = [state.test] if state.HasField("test") else []
    chosen = {(each.purpose, each.version) for each in judgements(settings, state)}
    return Report(
        run=state.run,
        state=RunState.State.Name(state.state).removeprefix("STATE_").lower(),
        sentence=state.sentence,
        figures=totals(settings, state, history),
        judged=[_judged(settings, each, chosen) for each in [*_validation(state, history), *tested]],
        workers=_workers(history),
        skipped=sum(step.skipped for step in history.steps),
        made=dict(sorted(state.made.items())),
    )


def _validation(state: RunState, history: History) -> list[Evaluation]:
    return [each for each in state.evaluations or history.evaluations if each.purpose != "test"]


def _judged(settings: RunSettings, found: Evaluation, chosen: set[tuple[str, int]]) -> JudgedRow:
    output = main_output(settings, found.accuracy)
    return JudgedRow(
        found.purpose,
        found.epoch,
        found.version,
        found.loss,
        found.accuracy[output] if output else None,
        (found.purpose, found.version) in chosen,
    )


def _workers(history: History) -> list[WorkerRow]:
    steps = history.steps
    shares: dict[str, list[tuple[int, float]]] = {}
    seconds: dict[str, list[float]] = {}
    for step in steps:
        total = sum(step.shares.values())
        for worker, share in step.shares.items():
            shares.setdefault(worker, []).append((share, share / max(total, 1)))
        for worker, spent in step.compute_seconds.items():
            seconds.setdefault(worker, []).append(spent)
    everything = sum(step.samples for step in steps)
    usual = median([each for taken in seconds.values() for each in taken] or [0.0])
    rows = []
    for worker, given in sorted(shares.items()):
        samples, taken = sum(share for share, _ in given), seconds.get(worker, [])
        rows.append(
            WorkerRow(
                worker,
                samples,
                samples / max(everything, 1),
                given[0][1],
                given[-1][1],
                samples / sum(taken) if sum(taken) > 0 else 0.0,
                median(taken) / usual if taken and usual > 0 else 0.0,
            )
        )
    return rows
