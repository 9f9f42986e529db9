"""`encephalon runs ls`: the runs of a store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from encephalon.cli import screen
from encephalon.cli.library.place import Place, run
from encephalon.cli.library.printing import print_json
from encephalon.cli.library.quantities import figure
from encephalon.cli.library.tables import titled
from encephalon.cli.training.events import percent
from encephalon.cli.training.looking import Look, look
from encephalon.cli.training.recorded import others
from encephalon.core.errors import Corrupt
from encephalon.library.library import Library
from encephalon.local.training import Runs

__all__ = ["listed"]


def listed(place: Place, *, as_json: bool) -> None:
    namespace = place.namespace or "default"
    found = run(place, lambda library: looks(library, namespace))
    if as_json:
        print_json({"runs": [summary(each) for each in found]})
    elif not found:
        screen.output().print("There are no runs yet; `encephalon train digits --data avmnist-sample` is one.")
    else:
        headings = ("run", "state", "brain", "data", "epoch", "step", "samples/s", "loss", "accuracy")
        right = ("epoch", "step", "samples/s", "loss", "accuracy")
        screen.output().print(titled("Runs", headings, [row(each) for each in found], right=right))


async def looks(library: Library, namespace: str) -> list[Look]:
    """The oldest first; a run that never began stands last, and one that cannot be read is told of on stderr."""
    runs, found = Runs(library.key_value, namespace), []
    for name in await runs.names():
        try:
            found.append(await look(runs, name))
        except Corrupt as error:
            Console(stderr=True, highlight=False).print(Text(error.message), soft_wrap=True)
    found += await others(library, {each.run for each in found})
    return sorted(found, key=lambda each: each.state.started_time.ToNanoseconds() or 1 << 63)


def row(found: Look) -> list[str]:
    result, settings = found.result, found.settings
    return [
        found.run,
        found.word,
        settings.brain.removeprefix("brain:"),
        settings.data.removeprefix("data_set:"),
        f"{found.epoch}/{settings.epochs}",
        str(result.steps),
        figure(found.samples_per_second) if found.samples_per_second else "",
        figure(result.loss) if result.loss is not None else "",
        percent(result.accuracy) if result.accuracy is not None else "",
    ]


def summary(found: Look) -> Mapping[str, Any]:
    return {
        "run": found.run,
        "state": found.word,
        "brain": found.settings.brain,
        "data": found.settings.data,
        "epoch": found.epoch,
        "epochs": found.settings.epochs,
        "steps": found.result.steps,
        "samples": found.result.samples,
        "samples_per_second": round(found.samples_per_second, 3),
        "loss": found.result.loss,
        "accuracy": found.result.accuracy,
    }
