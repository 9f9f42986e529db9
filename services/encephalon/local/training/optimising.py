"""Names of optimisers and schedules as people type them, made into those of torch, with what follows from the data."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from encephalon.api.library.v1 import library_pb2
from encephalon.api.parameter_server.v1.parameter_server_pb2 import Optimizer
from encephalon.learning.optimizers import ELEMENTWISE, SCHEDULES, WHOLE, check
from encephalon.learning.signatures import check_arguments
from encephalon.training.runs import RunSettings

__all__ = ["named_as_torch", "with_schedule"]

SHORT: Final = {
    "cosine": "CosineAnnealingLR",
    "one-cycle": "OneCycleLR",
    "onecycle": "OneCycleLR",
    "step": "StepLR",
    "exponential": "ExponentialLR",
    "linear": "LinearLR",
}


def named_as_torch(values: Mapping[str, Any]) -> dict[str, Any]:
    """`adamw` becomes AdamW, `cosine` becomes CosineAnnealingLR; what is not known stays as it is."""
    found = dict(values)
    for field, known in (("optimizer", ELEMENTWISE | WHOLE), ("schedule", SCHEDULES)):
        by_lower = {name.lower(): name for name in known} | (SHORT if field == "schedule" else {})
        if isinstance(name := found.get(field), str):
            found[field] = by_lower.get(name.lower(), name)
    return found


def with_schedule(settings: RunSettings, data: library_pb2.Record) -> RunSettings:
    """With the length of the run where a schedule needs it and was not told, and for OneCycleLR with the run's rate as
    the highest one. InvalidInput and Unsupported for what no parameter server can run.
    """
    arguments = dict(settings.schedule_arguments)
    if settings.schedule == "CosineAnnealingLR" and "T_max" not in arguments:
        arguments["T_max"] = updates(settings, data.data_set)
    if settings.schedule == "OneCycleLR":
        if "lr" in settings.optimizer_arguments:
            arguments.setdefault("max_lr", settings.optimizer_arguments["lr"])
        if not {"total_steps", "epochs", "steps_per_epoch"} & set(arguments):
            arguments["total_steps"] = updates(settings, data.data_set)
    check(
        Optimizer(
            name=settings.optimizer,
            arguments=json.dumps(settings.optimizer_arguments),
            schedule=settings.schedule,
            schedule_arguments=json.dumps(arguments),
        )
    )
    check_arguments("optimizer", settings.optimizer, settings.optimizer_arguments)
    if settings.schedule:
        check_arguments("schedule", settings.schedule, arguments)
    return settings.model_copy(update={"schedule_arguments": arguments})


def updates(settings: RunSettings, data: library_pb2.DataSet) -> int:
    """About how many the run will have, if nothing ends it before."""
    sizes = {split.name: split.samples for split in data.splits}
    samples = sizes.get(settings.split or "train", sum(sizes.values()))
    with suppress(ValueError):  # a split of its own
        samples -= round(samples * float(settings.validation or 0))
    rounds = math.ceil(samples / settings.batch_size) * settings.epochs
    found = rounds if settings.mode == "sync" else rounds * settings.workers
    return max(1, min(found, settings.most_steps or found))
