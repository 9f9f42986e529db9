"""Which optimisers and schedules the parameter server can run, and what they need. Imports no torch: the control node
plans with it, and a run is refused here before a process is started.
"""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import Any, Final

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.core.errors import InvalidInput, Unsupported

__all__ = ["ELEMENTWISE", "check", "read_arguments", "whole"]

ELEMENTWISE: Final = frozenset(
    [
        "ASGD",
        "Adadelta",
        "Adagrad",
        "Adam",
        "AdamW",
        "Adamax",
        "NAdam",
        "RAdam",
        "RMSprop",
        "Rprop",
        "SGD",
    ]
)
"""What they do to an element depends on no other one, so tensors can be cut and laid together anyhow."""

WHOLE: Final = frozenset(["Adafactor", "Muon"])
"""They look at a tensor as a matrix."""

REFUSED: Final = {
    "LBFGS": "it computes the loss again and again within one step, which a shard cannot",
    "SparseAdam": "it takes sparse gradients, and those that are pushed are dense",
}

SCHEDULES: Final = frozenset(
    [
        "ConstantLR",
        "CosineAnnealingLR",
        "CosineAnnealingWarmRestarts",
        "CyclicLR",
        "ExponentialLR",
        "LinearLR",
        "MultiStepLR",
        "OneCycleLR",
        "PolynomialLR",
        "SequentialLR",
        "StepLR",
    ]
)
REFUSED_SCHEDULES: Final = {
    "ReduceLROnPlateau": "it is stepped by a validation loss and not by updates",
    "LambdaLR": "it takes a function, which arguments in JSON cannot say",
    "MultiplicativeLR": "it takes a function, which arguments in JSON cannot say",
    "ChainedScheduler": "its parts would step side by side; SequentialLR puts them one behind the other",
}


def whole(optimizer: pb.Optimizer) -> bool:
    """Whether it needs uncut tensors in their shapes (`layout.planned(whole=True)`)."""
    return optimizer.name not in ELEMENTWISE


def check(optimizer: pb.Optimizer) -> None:
    """Names and arguments, as far as that can be told without torch.

    Unsupported for what a parameter server cannot do, with the reason; InvalidInput for an unknown name, with the
    nearest known one, and for arguments that are no JSON object. `signatures` knows which there are.
    """
    _known("optimizer", optimizer.name, ELEMENTWISE | WHOLE, REFUSED)
    read_arguments("optimizer", optimizer.name, optimizer.arguments)
    if optimizer.schedule:
        _known("schedule", optimizer.schedule, SCHEDULES, REFUSED_SCHEDULES)
        arguments = read_arguments("schedule", optimizer.schedule, optimizer.schedule_arguments)
        if optimizer.schedule == "SequentialLR":
            _check_parts(arguments)


def read_arguments(what: str, name: str, text: str) -> dict[str, Any]:
    """Keyword arguments; none for no text. InvalidInput when that is no JSON object."""
    try:
        arguments = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the arguments of {what} {name} are no JSON: {error}", name=name) from error
    if not isinstance(arguments, dict):
        raise InvalidInput(f"the arguments of {what} {name} are {text[:80]}, expected a JSON object", name=name)
    return arguments


def _check_parts(arguments: dict[str, Any]) -> None:
    parts = arguments.get("schedulers")
    if not isinstance(parts, list) or not all(isinstance(part, dict) and "name" in part for part in parts):
        raise InvalidInput(
            'schedule SequentialLR needs "schedulers", a list of {"name": ..., "arguments": {...}}, and "milestones"'
        )
    for part in parts:
        if part["name"] == "SequentialLR":
            raise Unsupported("a SequentialLR within a SequentialLR is not supported; write its parts one by one")
        _known("schedule", str(part["name"]), SCHEDULES, REFUSED_SCHEDULES)


def _known(what: str, name: str, known: frozenset[str], refused: dict[str, str]) -> None:
    if name in refused:
        raise Unsupported(f"{what} {name} cannot run on a parameter server: {refused[name]}", name=name)
    if name not in known:
        by_lower = {each.lower(): each for each in known}
        begin_so = [each for each in sorted(by_lower) if name and each.startswith(name.lower())]
        near = begin_so or get_close_matches(name.lower(), by_lower, 1, 0.5)
        hint = f"; did you mean {by_lower[near[0]]}?" if near else f"; known are {', '.join(sorted(known))}"
        raise InvalidInput(f"there is no {what} '{name}'{hint}", name=name)
