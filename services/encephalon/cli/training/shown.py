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
from encephalon.cli.training.looking import Look
from encephalon.cli.training.picture import Picture
from encephalon.cli.training.recorded import found
from encephalon.cli.training.report import figures, judgements, next_commands
from encephalon.library.library import Library
from encephalon.local.training import Runs, TrainingResult, pictures_of, plain

__all__ = ["shown"]


def shown(place: Place, name: str, *, as_json: bool) -> None:
    options = options_of(place)

    async def work(library: Library) -> tuple[Look, TrainingResult]:
        look = await found(library, Runs(library.key_value, options.namespace), name)
        own = options.folder(name)
        pictures = await pictures_of(library, look.result.made, own, own)
        return look, replace(look.result, state=look.word, pictures=pictures)

    look, result = run(place, work)
    if as_json:
        print_json(document(look, result))
    else:
        show(screen.output(), look, result)


def document(look: Look, result: TrainingResult) -> dict[str, Any]:
    checkpoint = look.state.checkpoint
    return {
        **plain(result),
        "epoch": look.epoch,
        "settings": look.settings.model_dump(mode="json"),
        "checkpoint": {
            "step": checkpoint.version,
            "bytes": sum(piece.size for piece in checkpoint.pieces),
            "objects": [piece.key for piece in checkpoint.pieces],
        }
        if checkpoint.pieces
        else None,
        "workers": [worker.worker for worker in look.status.workers] if look.status else [],
    }


def show(console: Console, look: Look, result: TrainingResult) -> None:
    sentence = look.status.sentence if look.status else look.state.sentence
    console.print(Text(f"Run '{look.run}': {look.word}{f', {sentence}' if sentence else ''}", style="bold"))
    console.print(facts({**dict(about(look)), **dict(figures(result))}))
    if look.status is not None:
        console.print()
        console.print(Picture(bars=False).drawn(look.status))
    elif result.validation or result.test:
        console.print()
        console.print(judgements(result.validation, result.test))
    console.print()
    console.print(titled("Settings", ("name", "value"), settings(look)))
    for title, rows in (("Made", dict(result.made)), ("Pictures", {k: str(v) for k, v in result.pictures.items()})):
        if rows:
            console.print()
            console.print(titled(title, ("what", "where"), list(rows.items())))
    console.print()
    for line in commands(look, result):
        console.print(Text(line), soft_wrap=True)


def about(look: Look) -> Iterator[tuple[str, str]]:
    state = look.state
    if state.started_time.seconds:
        yield "began", f"{moment(state.started_time).astimezone():%Y-%m-%d %H:%M:%S}"
    if state.changed_time.seconds:
        yield "changed", ago(state.changed_time, datetime.now(UTC))
    if state.checkpoint.pieces:
        pieces = state.checkpoint.pieces
        yield "checkpoint", f"step {state.checkpoint.version}, {size(sum(piece.size for piece in pieces))}"


def settings(look: Look) -> list[tuple[str, str]]:
    """Those that were chosen: what differs from the default, and what has none."""
    fields = type(look.settings).model_fields
    values = look.settings.model_dump(mode="json", exclude={"run"})
    return [
        (name, value if isinstance(value, str) else json.dumps(value))
        for name, value in values.items()
        if getattr(look.settings, name) != fields[name].get_default(call_default_factory=True)
    ]


def commands(look: Look, result: TrainingResult) -> Iterator[str]:
    if look.status is not None:
        yield f"`encephalon runs stop {look.run}` ends it with a checkpoint."
    elif look.word in ("interrupted", "new"):
        yield f"`encephalon runs resume {look.run}` goes on with it."
    else:
        yield from list(next_commands(result))[:-1]
