"""What a run has come to, for people."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from rich.console import Console
from rich.table import Table
from rich.text import Text

from encephalon.cli.library.quantities import figure, size
from encephalon.cli.library.tables import facts, titled
from encephalon.cli.training.events import headed, percent
from encephalon.local.training import Judged, TrainingResult

__all__ = ["judgements", "next_commands", "show"]

VERBS = {"succeeded": "has succeeded", "stopped": "was stopped", "failed": "has failed"}


def show(console: Console, result: TrainingResult) -> None:
    why = f": {result.sentence}" if result.sentence else ""
    console.print(
        Text(f"Run '{result.run}' {VERBS.get(result.state, result.state)}{why}", style="bold"), soft_wrap=True
    )
    console.print(facts(dict(figures(result))))
    if result.validation or result.test:
        console.print()
        console.print(judgements(result.validation, result.test))
    if result.made:
        console.print()
        console.print(titled("Made", ("what", "in the library"), list(result.made.items())))
    if result.pictures:
        console.print()
        console.print(titled("Pictures", ("of", "file"), [(name, str(path)) for name, path in result.pictures.items()]))
    console.print()
    for line in next_commands(result):
        console.print(Text(line), soft_wrap=True)


def figures(result: TrainingResult) -> Iterator[tuple[str, str]]:
    yield "steps", str(result.steps)
    yield "samples", f"{result.samples} ({figure(result.samples_per_second)} per second)"
    yield "took", str(timedelta(seconds=round(result.seconds)))
    yield "moved", size(result.bytes)
    yield "loss", figure(result.loss) if result.loss is not None else ""
    yield "accuracy", percent(result.accuracy) if result.accuracy is not None else ""


def judgements(validation: tuple[Judged, ...], test: Judged | None) -> Table:
    found = [("validation", each) for each in validation] + ([("test", test)] if test else [])
    outputs = sorted({output for _, each in found for output in each.accuracy})
    rows = [
        (
            name,
            str(each.epoch + 1),
            str(each.step),
            figure(each.loss),
            *(percent(each.accuracy[output]) if output in each.accuracy else "" for output in outputs),
        )
        for name, each in found
    ]
    numbers = ("epoch", "step", "loss", *headed(outputs))
    return titled("Judged", ("on", *numbers), rows, right=numbers)


def next_commands(result: TrainingResult) -> Iterator[str]:
    if "brain" in result.made:
        yield f"`encephalon up {result.made['brain'].removeprefix('brain:')}` runs what it has learned."
    if result.state in ("stopped", "failed"):
        yield f"`encephalon runs resume {result.run}` goes on from its last checkpoint."
    yield f"`encephalon runs show {result.run}` shows it again."
