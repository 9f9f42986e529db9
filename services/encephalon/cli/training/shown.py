"""`encephalon runs show`: everything that is known of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.text import Text

from encephalon.cli import screen
from encephalon.cli.library.place import Place, run
from encephalon.cli.library.printing import print_json
from encephalon.cli.library.quantities import ago, moment, size
from encephalon.cli.library.tables import facts, titled
from encephalon.cli.training.command import options_of
from encephalon.cli.training.looking import Look, look
from encephalon.cli.training.picture import Picture
from encephalon.cli.training.report import figures, judgements, next_commands
from encephalon.library.library import Library
from encephalon.local.training import Runs, TrainingResult, pictures_of, plain

__all__ = ["shown"]


def shown(place: Place, name: str, *, as_json: bool) -> None:
    options = options_of(place)

    async def work(library: Library) -> tuple[Look, TrainingResult]:
        found = await look(Runs(library.key_value, options.namespace), name)
        own = options.folder(name)
        pictures = await pictures_of(library, found.result.made, own, own)
        return found, replace(found.result, state=found.word, pictures=pictures)

    found, result = run(place, work)
    if as_json:
        print_json(document(found, result))
    else:
        show(screen.output(), found, result)


def document(found: Look, result: TrainingResult) -> dict[str, Any]:
    checkpoint = found.state.checkpoint
    return {
        **plain(result),
        "epoch": found.epoch,
        "settings": found.settings.model_dump(mode="json"),
        "checkpoint": {
            "step": checkpoint.version,
            "bytes": sum(piece.size for piece in checkpoint.pieces),
            "objects": [piece.key for piece in checkpoint.pieces],
        }
        if checkpoint.pieces
        else None,
        "workers": [worker.worker for worker in found.status.workers] if found.status else [],
    }


def show(console: Console, found: Look, result: TrainingResult) -> None:
    sentence = found.status.sentence if found.status else found.state.sentence
    console.print(Text(f"Run '{found.run}': {found.word}{f', {sentence}' if sentence else ''}", style="bold"))
    console.print(facts({**dict(about(found)), **dict(figures(result))}))
    if found.status is not None:
        console.print()
        console.print(Picture().drawn(found.status))
    elif result.validation or result.test:
        console.print()
        console.print(judgements(result.validation, result.test))
    console.print()
    console.print(titled("Settings", ("name", "value"), settings(found)))
    for title, rows in (("Made", dict(result.made)), ("Pictures", {k: str(v) for k, v in result.pictures.items()})):
        if rows:
            console.print()
            console.print(titled(title, ("what", "where"), list(rows.items())))
    console.print()
    for line in commands(found, result):
        console.print(Text(line), soft_wrap=True)


def about(found: Look) -> Iterator[tuple[str, str]]:
    state = found.state
    if state.started_time.seconds:
        yield "began", f"{moment(state.started_time).astimezone():%Y-%m-%d %H:%M:%S}"
    if state.changed_time.seconds:
        yield "changed", ago(state.changed_time, datetime.now(UTC))
    if state.checkpoint.pieces:
        pieces = state.checkpoint.pieces
        yield "checkpoint", f"step {state.checkpoint.version}, {size(sum(piece.size for piece in pieces))}"


def settings(found: Look) -> list[tuple[str, str]]:
    """Those that were chosen: what differs from the default, and what has none."""
    fields = type(found.settings).model_fields
    values = found.settings.model_dump(mode="json", exclude={"run"})
    return [
        (name, value if isinstance(value, str) else json.dumps(value))
        for name, value in values.items()
        if getattr(found.settings, name) != fields[name].get_default(call_default_factory=True)
    ]


def commands(found: Look, result: TrainingResult) -> Iterator[str]:
    if found.status is not None:
        yield f"`encephalon runs stop {found.run}` ends it with a checkpoint."
    elif found.word in ("interrupted", "new"):
        yield f"`encephalon runs resume {found.run}` goes on with it."
    else:
        yield from list(next_commands(result))[:-1]
