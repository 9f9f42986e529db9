"""`encephalon.train`: a whole training run in one call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from encephalon.api.training.v1.training_pb2 import RunStatus
from encephalon.core.blocking import Loop
from encephalon.core.errors import InvalidInput
from encephalon.library.library import Library
from encephalon.library.open import open_library
from encephalon.local.folders import Folders, default_state_dir
from encephalon.local.training.asked import Asked, asked, resumed
from encephalon.local.training.kept import Runs
from encephalon.local.training.options import TrainingOptions
from encephalon.local.training.packages import check_installed
from encephalon.local.training.result import TrainingResult, boards_of, pictures_of, result_of
from encephalon.local.training.run import Training, training
from encephalon.training.runs import RunSettings

__all__ = ["begun", "finished", "opened", "settled", "train", "train_async"]

Progress = Callable[[RunStatus], object]


async def train_async(
    brain: str | Path = "",
    data: str = "",
    *,
    resume: str | None = None,
    progress: Progress = lambda status: None,
    report: Path | None = None,
    state_dir: Path | None = None,
    state: str | None = None,
    objects: str | None = None,
    namespace: str = "default",
    tensorboard: Path | None = None,
    **settings: Any,
) -> TrainingResult:
    """Trains a brain of the library (`digits`, `digits@production`), or of a manifest, on one of its data sets, with
    processes of this machine that are gone when it returns.

    settings: fields of `encephalon.training.runs.RunSettings`, such as workers=3, shards=2, mode="sync", epochs=5,
        batch_size=96, optimizer="AdamW", optimizer_arguments={"lr": 1e-3}; `run` is its name.
    resume: the name of a run that rests; brain and data are its own then.
    progress: told how the run goes (`api.training.v1.RunStatus`), at least once a second.
    report: a folder for the run's pictures; by default they lie in that of the run.
    state_dir, or state and objects: where the library and the runs are, as `open_library` takes them.

    A run that was asked to stop from elsewhere gives a result of state "stopped". When this call is cancelled, or
    interrupted by Ctrl-C, the run is stopped with a checkpoint. Raises EncephalonError with a sentence when it cannot
    begin or fails.
    """
    options = TrainingOptions(
        state=state or "",
        objects=objects or "",
        namespace=namespace,
        state_dir=state_dir or default_state_dir(),
        tensorboard=tensorboard,
    )
    wanted = await settled(options, brain, data, resume, settings)
    async with begun(wanted, options) as run:
        last = None
        async with aclosing(run.watch()) as statuses:
            async for last in statuses:
                progress(last)
        state_at_end = await run.wait()
    result = result_of(run.settings, state_at_end, last)
    return (await finished(options, result, report)).checked()


def train(brain: str | Path = "", data: str = "", **options: Any) -> TrainingResult:
    """`train_async` for programs without an event loop, and for notebooks: the same parameters, the same result."""
    with Loop() as loop:
        return loop.wait(train_async(brain, data, **options))


@asynccontextmanager
async def opened(options: TrainingOptions) -> AsyncIterator[tuple[Library, Runs]]:
    """The library and the runs of these stores."""
    Folders(options.state_dir).prepare()
    namespace = options.namespace
    addresses = (options.state_url, options.objects_url)
    async with open_library(*addresses, namespace=namespace, cache_dir=options.cache_dir) as library:
        yield library, Runs(library.key_value, namespace)


async def settled(
    options: TrainingOptions, brain: str | Path, data: str, resume: str | None, settings: Mapping[str, Any]
) -> Asked:
    """What is to be done, pinned to versions; everything that can be said to be wrong now is."""
    check_installed()
    values = dict(settings)
    if resume is None and not (brain and data):
        raise InvalidInput("a run needs a brain and a data set, as in train('digits', 'avmnist-sample')")
    if unknown := sorted(set(values) - set(RunSettings.model_fields)):
        near = get_close_matches(unknown[0], RunSettings.model_fields, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(RunSettings.model_fields)}"
        raise InvalidInput(f"there is no setting '{unknown[0]}' of a run; {hint}", name=unknown[0])
    async with opened(options) as (library, runs):
        if resume is None:
            return await asked(library, runs, brain, data, values)
        return await resumed(library, runs, resume, values, brain=brain, data=data)


@asynccontextmanager
async def begun(wanted: Asked, options: TrainingOptions) -> AsyncIterator[Training]:
    """The run, while it goes."""
    chosen = replace(options, processes=options.processes or wanted.processes)
    async with training(wanted.settings, chosen, wanted.regions, resume=wanted.resume) as run:
        yield run


async def finished(options: TrainingOptions, result: TrainingResult, report: Path | None) -> TrainingResult:
    """With its pictures, where people find them."""
    async with opened(options) as (library, _):
        own = options.folder(result.run)
        pictures = await pictures_of(library, result.made, report or own, own)
        if options.tensorboard is not None:
            await boards_of(library, result.made, options.tensorboard, own)
    return replace(result, pictures=pictures)
