"""`encephalon train`: from what was typed to a run that is watched and reported."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

from encephalon.api.training.v1.training_pb2 import RunState
from encephalon.cli import interrupts, screen
from encephalon.cli.interrupts import Interrupts
from encephalon.cli.library.place import Place
from encephalon.cli.library.printing import print_json
from encephalon.cli.training import report as reporting
from encephalon.cli.training.wanted import settings
from encephalon.cli.training.watching import Screen, shown
from encephalon.core import logs
from encephalon.core.errors import EncephalonError, InvalidInput
from encephalon.local.training import (
    Training,
    TrainingOptions,
    TrainingResult,
    begun,
    finished,
    plain,
    result_of,
    settled,
)

__all__ = ["options_of", "run", "settings"]


def run(
    place: Place,
    brain: str | None,
    data: str | None,
    resume: str | None,
    values: Mapping[str, Any],
    *,
    tensorboard: Path | None,
    report: Path | None,
    as_json: bool,
) -> None:
    """Raises KeyboardInterrupt when it was, after all is said; FailedPrecondition when the run has failed."""
    check(brain, data, resume)
    logs.configure(level="ERROR")  # what hinders is said in one sentence
    options = options_of(place, tensorboard)

    async def command(interrupted: Interrupts) -> tuple[TrainingResult, bool]:
        wanted = await settled(options, brain or "", data or "", resume, values)
        async with begun(wanted, options) as training:
            interrupted.hurry = training.kill
            with shown(training.run) as told:
                state = await watched(training, told)
        return await finished(options, result_of(training.settings, state, told.last), report), interrupted.happened

    result, happened = interrupts.run(command)
    if as_json:
        print_json(plain(result))
    else:
        reporting.show(screen.output(), result)
    if happened:
        raise KeyboardInterrupt
    result.checked()


def check(brain: str | None, data: str | None, resume: str | None) -> None:
    """InvalidInput, with what is missing."""
    if resume is None and brain is None:
        raise InvalidInput("which brain is to learn? write it as: encephalon train digits --data avmnist-sample")
    if resume is None and data is None:
        raise InvalidInput(
            f"from what is {brain} to learn? write it as: encephalon train {brain} --data avmnist-sample"
        )


def options_of(place: Place, tensorboard: Path | None = None) -> TrainingOptions:
    return TrainingOptions(
        state=place.state,
        objects=place.objects,
        namespace=place.namespace or "default",
        state_dir=place.folder,
        cache_dir=place.state_dir / "cache" if place.state_dir else None,
        tensorboard=tensorboard,
    )


async def watched(training: Training, told: Screen) -> RunState:
    """To the end of the run; the first Ctrl-C lets it end with a checkpoint, the second one at once."""
    try:
        async with aclosing(training.watch()) as statuses:
            async for status in statuses:
                told.tell(status)
        return await training.wait()
    except asyncio.CancelledError:
        told.say(f"Run '{training.run}' stops with a checkpoint; Ctrl-C again ends it at once ...")
        try:
            return await training.stop()
        except EncephalonError as error:
            told.say(error.message)
            raise asyncio.CancelledError from error
