"""What can be typed about a run: an option for every field of `training.runs.RunSettings`.

Without a default here, an option that was not typed can be told from one that was; the run's own default is in its
help.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import typer

from encephalon.cli.completion import complete_optimizer, complete_schedule

__all__ = ["OPTIONS"]

RUN, DATA, LEARNING = "The run", "Data", "What learns"
PARALLEL, PIPELINE, OPTIMISER, TIME = "In parallel", "Regions in processes of their own", "Optimiser", "Time-outs"


def option(kind: Any, flag: str, help: str, panel: str, **more: Any) -> Any:
    return Annotated[kind | None, typer.Option(flag, help=help, rich_help_panel=panel, show_default=False, **more)]


def text(flag: str, help: str, panel: str, **more: Any) -> Any:
    return option(str, flag, help, panel, **more)


def number(flag: str, help: str, panel: str, **more: Any) -> Any:
    return option(int, flag, help, panel, **more)


def fraction(flag: str, help: str, panel: str, **more: Any) -> Any:
    return option(float, flag, help, panel, **more)


def several(flag: str, metavar: str, help: str, panel: str) -> Any:
    return option(list[str], flag, f"{help} Can be repeated.", panel, metavar=metavar)


def switch(flag: str, help: str, panel: str) -> Any:
    return option(bool, flag, help, panel)


def choice(flag: str, words: Any, help: str, panel: str) -> Any:
    return option(words, flag, help, panel, case_sensitive=False)


OPTIONS: Final[Mapping[str, Any]] = {
    # the run
    "run": text("--name", "Its name. Default: that of the brain and a number.", RUN, metavar="RUN"),
    "epochs": number("--epochs", "Times through the data. Default: 5.", RUN, min=1),
    "most_steps": number("--most-steps", "Ends after so many updates of the parameters.", RUN, min=1),
    "patience": number(
        "--patience", "Ends after so many epochs without a lower validation loss; the best one is kept.", RUN, min=1
    ),
    "seed": number("--seed", "Of everything random. Default: 0.", RUN, min=0),
    "checkpoint_steps": number("--checkpoint-steps", "Updates between two checkpoints. Default: 50.", RUN, min=1),
    # data
    "split": text("--split", "That is learned from. Default: train, or the only one there is.", DATA),
    "validation": text(
        "--validation",
        "A split, or the share of the training split that is held out; none judges nothing. Default: 0.1.",
        DATA,
        metavar="SPLIT|SHARE",
    ),
    "test": text(
        "--test", "Split that is judged at the end; none judges nothing. Default: test.", DATA, metavar="SPLIT"
    ),
    "inputs": several("--input", "INPUT=MODALITY", "What feeds an input. Default: the modality of its name.", DATA),
    "label": text("--label", "Modality with the classes. Default: the only one.", DATA, metavar="MODALITY"),
    "modality_dropout": fraction(
        "--modality-dropout", "Share of the samples that lack an optional input. Default: 0.", DATA, min=0, max=0.5
    ),
    # what learns
    "learn": several("--learn", "REGION", "A region that learns. Default: all that can.", LEARNING),
    "freeze": several("--freeze", "REGION", "A region that does not learn.", LEARNING),
    "from_scratch": switch("--from-scratch", "Begin with random weights.", LEARNING),
    "targets": several(
        "--target", "OUTPUT[=WEIGHT]", "An output with a loss, and its weight. Default: the first one.", LEARNING
    ),
    "loss": choice("--loss", Literal["cross_entropy", "mse"], "Default: cross_entropy.", LEARNING),
    # in parallel
    "workers": number("--workers", "Processes that compute. Default: 1.", PARALLEL, min=1, max=1000),
    "shards": number("--shards", "Processes that keep the parameters. Default: 1.", PARALLEL, min=1, max=256),
    "mode": choice(
        "--mode",
        Literal["sync", "ssp", "async"],
        "sync adds the gradients of all workers; ssp lets the fastest be ahead a little; async lets each go on alone. "
        "Default: sync.",
        PARALLEL,
    ),
    "staleness": number("--staleness", "Of ssp: updates that the fastest may be ahead. Default: 3.", PARALLEL, min=0),
    "batch_size": number("--batch-size", "Samples of one update, over all workers. Default: 96.", PARALLEL, min=1),
    "plan": choice(
        "--plan",
        Literal["dynamic", "equal", "fixed"],
        "How a batch is shared: by the workers' speed; equally; or in as many equal shares as there are workers, "
        "whoever computes them, which repeats bit for bit. Default: dynamic.",
        PARALLEL,
    ),
    "replan": choice("--replan", Literal["steps", "epoch"], "When shares follow the speeds. Default: steps.", PARALLEL),
    "replan_every": number("--replan-every", "Updates between two plans. Default: 10.", PARALLEL, min=1),
    "smoothing": fraction("--smoothing", "Weight of the newest speed, 0 to 1. Default: 0.5.", PARALLEL, max=1),
    "wire": choice(
        "--wire", Literal["fp32", "bf16", "topk"], "How gradients and parameters travel. Default: fp32.", PARALLEL
    ),
    "top_k": fraction("--top-k", "Share of the elements that topk sends. Default: 0.01.", PARALLEL, max=1),
    "precision": choice(
        "--precision", Literal["fp32", "bf16"], "bf16: forward passes under autocast. Default: fp32.", PARALLEL
    ),
    "threads": number("--threads", "Of every worker. Default: 1.", PARALLEL, min=1),
    # model parallel
    "pipeline": switch("--pipeline", "Every worker drives a process for each region.", PIPELINE),
    "micro_batch": number("--micro-batch", "Samples that travel together. Default: 16.", PIPELINE, min=1),
    "recompute": switch("--recompute", "Compute activations again instead of keeping them.", PIPELINE),
    # optimiser
    "optimizer": text(
        "--optimizer",
        "Of torch.optim, in any case. Default: AdamW.",
        OPTIMISER,
        metavar="NAME",
        autocompletion=complete_optimizer,
    ),
    "optimizer_arguments": several("--optimizer-arg", "NAME=VALUE", "As momentum=0.9.", OPTIMISER),
    "schedule": text(
        "--schedule",
        "Of the learning rate: cosine, or a name of torch.optim.lr_scheduler.",
        OPTIMISER,
        metavar="NAME",
        autocompletion=complete_schedule,
    ),
    "schedule_arguments": several("--schedule-arg", "NAME=VALUE", "As step_size=100; in updates.", OPTIMISER),
    "clip_norm": fraction("--clip-norm", "Most that the whole gradient's norm may be.", OPTIMISER, min=0),
    "non_finite": choice(
        "--non-finite", Literal["stop", "skip"], "When a gradient is not finite. Default: stop.", OPTIMISER
    ),
    # time-outs
    "heartbeat_s": fraction("--heartbeat", "Seconds between two. Default: 0.5.", TIME, min=0),
    "death_s": fraction("--death", "Seconds of silence after which a worker is out. Default: 3.", TIME, min=0),
    "shard_timeout_s": fraction("--shard-timeout", "Seconds in which a shard must be back. Default: 60.", TIME, min=0),
    "workers_timeout_s": fraction("--workers-timeout", "Seconds without any worker. Default: 300.", TIME, min=0),
}
"""By field."""
