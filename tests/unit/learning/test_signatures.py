"""What is known of torch's optimisers and schedules without it is what they say themselves."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.optim import lr_scheduler

from encephalon.learning.optimizers import ELEMENTWISE, SCHEDULES, WHOLE
from encephalon.learning.signatures import OPTIMIZERS, SCHEDULERS, SHARDS_OWN

FUNCTIONS = {"scale_fn"}


def taken(kind: Any) -> dict[str, bool]:
    """Arguments of a constructor, and whether each must be given; those that only a program can say are left out."""
    _, *parameters = inspect.signature(kind).parameters.values()
    left_out = SHARDS_OWN | FUNCTIONS
    return {each.name: each.default is each.empty for each in parameters if each.name not in left_out}


def written(text: str) -> dict[str, bool]:
    return {each.removesuffix("!"): each.endswith("!") for each in text.split()}


def test_the_arguments_of_optimisers_are_those_of_torch() -> None:
    assert set(OPTIMIZERS) == ELEMENTWISE | WHOLE
    for name, text in OPTIMIZERS.items():
        assert written(text) == taken(getattr(torch.optim, name)), name


def test_the_arguments_of_schedules_are_those_of_torch() -> None:
    assert set(SCHEDULERS) == SCHEDULES
    for name, text in SCHEDULERS.items():
        assert written(text) == taken(getattr(lr_scheduler, name)), name
