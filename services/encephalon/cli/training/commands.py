"""What can be typed behind `encephalon train` and `encephalon runs`. The commands' work is imported when it is used."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from encephalon.cli.completion import complete_brain, complete_data_set, complete_run
from encephalon.cli.library.place import AsJson, Place, placed
from encephalon.cli.training.options import OPTIMISER, OPTIONS, PARALLEL, RUN

__all__ = ["app", "train"]

app = typer.Typer(help="Training runs: those that learn now, and those that did.", no_args_is_help=True)

CHANGEABLE = ("workers", "shards", "threads", "epochs", "most_steps", "patience", "checkpoint_steps", "non_finite")
"""Of `local.training`, which costs an import."""

Run = Annotated[str, typer.Argument(metavar="RUN", help="Its name.", autocompletion=complete_run)]


def with_options(command: Callable[..., None], options: Mapping[str, Any]) -> Callable[..., None]:
    """Gives `command(..., typed, ...)` the options in the place of its parameter `typed`."""

    def collecting(*args: Any, **given: Any) -> None:
        command(*args, typed={name: given.pop(name) for name in options}, **given)

    signature = inspect.signature(command, eval_str=True)
    parameters = []
    for parameter in signature.parameters.values():
        if parameter.name != "typed":
            parameters.append(parameter)
            continue
        parameters += [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=annotation)
            for name, annotation in options.items()
        ]
    collecting.__name__, collecting.__doc__ = command.__name__, command.__doc__
    collecting.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return collecting


def training(
    place: Place,
    brain: Annotated[
        str | None,
        typer.Argument(
            metavar="BRAIN",
            help="A brain of the library, as digits or digits@production, or a manifest, BRAIN.yaml.",
            autocompletion=complete_brain,
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="DATA",
            help="A data set of the library; avmnist-sample is always there.",
            rich_help_panel=RUN,
            autocompletion=complete_data_set,
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Go on with a run that was stopped, or failed, from its last checkpoint.",
            rich_help_panel=RUN,
            autocompletion=complete_run,
        ),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option("--lr", help="Learning rate. Default: 0.001.", rich_help_panel=OPTIMISER, show_default=False),
    ] = None,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic",
            help="Repeats bit for bit: --plan fixed --mode sync --threads 1.",
            rich_help_panel=PARALLEL,
        ),
    ] = False,
    typed: Mapping[str, Any] | None = None,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write TensorBoard's event files.", rich_help_panel=RUN)
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Put the pictures there. Default: the run's folder.", rich_help_panel=RUN),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Lets a brain learn from a data set, in processes of this machine, until it is done or Ctrl-C.

    The trained networks and the brain with them become new versions in the library.
    """
    from encephalon.cli.training import command

    command.run(
        place,
        brain,
        data,
        resume,
        command.settings(typed or {}, lr=lr, deterministic=deterministic),
        tensorboard=tensorboard,
        report=report,
        as_json=as_json,
    )


train = placed(with_options(training, OPTIONS))


@app.command()
@placed
def ls(place: Place, as_json: AsJson = False) -> None:
    """Lists runs, the newest last."""
    from encephalon.cli.training import listing

    listing.listed(place, as_json=as_json)


@app.command()
@placed
def show(place: Place, run: Run, as_json: AsJson = False) -> None:
    """Shows what a run was told, how it goes or went, and what it has made."""
    from encephalon.cli.training import shown

    shown.shown(place, run, as_json=as_json)


@app.command()
@placed
def stop(
    place: Place,
    run: Run,
    timeout: Annotated[float, typer.Option(min=1.0, help="Seconds until it must have stopped.")] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Ends a run at its next step, with a checkpoint; wherever it runs."""
    from encephalon.cli.training import stopping

    stopping.stop(place, run, timeout_s=timeout, as_json=as_json)


def resume(
    place: Place,
    run: Run,
    typed: Mapping[str, Any] | None = None,
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Put the pictures there.")] = None,
    as_json: AsJson = False,
) -> None:
    """Goes on with a run that was stopped, or failed, from its last checkpoint; as `train --resume RUN`."""
    from encephalon.cli.training import command

    wanted = command.settings(typed or {})
    command.run(place, None, None, run, wanted, tensorboard=None, report=report, as_json=as_json)


app.command()(placed(with_options(resume, {name: OPTIONS[name] for name in CHANGEABLE})))
