"""Runs of which only the library knows: their stores have forgotten them, or they came from another library."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.api.training.v1.training_pb2 import Evaluation, RunState
from encephalon.cli.training.looking import Look, look
from encephalon.core.errors import Corrupt, NotFound
from encephalon.library.library import Library
from encephalon.library.query import Query
from encephalon.library.records import Reference
from encephalon.local.training import Runs
from encephalon.training.runs import RunSettings

__all__ = ["found", "others"]

STATES = {
    pb.Run.STATE_SUCCEEDED: RunState.STATE_SUCCEEDED,
    pb.Run.STATE_FAILED: RunState.STATE_FAILED,
    pb.Run.STATE_STOPPED: RunState.STATE_STOPPED,
}


async def found(library: Library, runs: Runs, run: str) -> Look:
    """From the store, else from the library. NotFound with the nearest name."""
    try:
        return await look(runs, run)
    except NotFound as error:
        try:
            record = await library.show(Reference(run, kind="run"))
        except NotFound:
            raise error from None
        return recorded(record)


async def others(library: Library, known: Collection[str]) -> list[Look]:
    """The latest record of each run that is not among those known; one that other programs wrote is left out."""
    looks = []
    async for summary in library.ls(Query(kind="run")):
        if summary.id.name not in known:
            try:
                looks.append(recorded(await library.show(Reference.of(summary.id))))
            except Corrupt:
                continue
    return looks


def recorded(record: pb.Record) -> Look:
    """Corrupt when its settings are not those of a training run."""
    settings = RunSettings.read(record.run.settings.encode())
    figures = record.metrics
    state = RunState(
        run=record.id.name,
        state=STATES.get(record.run.state, RunState.STATE_UNSPECIFIED),
        sentence=record.description,
        started_time=record.run.started_time,
        changed_time=record.run.ended_time,
        samples=round(figures.get("samples", 0)),
        seconds=figures.get("seconds", 0.0),
        bytes=round(figures.get("bytes", 0)),
        made={"run": str(Reference.of(record.id))},
    )
    state.checkpoint.version = round(figures.get("steps", 0))
    if (validation := judged("validation", settings, figures)) is not None:
        state.evaluations.append(validation)
    if (test := judged("test", settings, figures)) is not None:
        state.test.CopyFrom(test)
    return Look(record.id.name, settings, state, None)


def judged(purpose: str, settings: RunSettings, figures: Mapping[str, float]) -> Evaluation | None:
    accuracy = f"accuracy.{purpose}"
    several = {name[len(accuracy) + 1 :]: value for name, value in figures.items() if name.startswith(f"{accuracy}.")}
    one = {next(iter(settings.targets), "output"): figures[accuracy]} if accuracy in figures else {}
    if not (several or one or f"loss.{purpose}" in figures):
        return None
    return Evaluation(
        purpose=purpose,
        epoch=settings.epochs - 1,
        version=round(figures.get("steps", 0)),
        loss=figures.get(f"loss.{purpose}", 0.0),
        accuracy=several or one,
    )
