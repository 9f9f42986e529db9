"""Which arguments optimisers and schedules of torch take. Imports no torch; a test compares it with torch's own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Final

from encephalon.core.errors import InvalidInput

__all__ = ["OPTIMIZERS", "SCHEDULERS", "check_arguments"]

OPTIMIZERS: Final[Mapping[str, str]] = {
    "ASGD": "lr lambd alpha t0 weight_decay maximize",
    "Adadelta": "lr rho eps weight_decay maximize",
    "Adafactor": "lr beta2_decay eps d weight_decay maximize",
    "Adagrad": "lr lr_decay weight_decay initial_accumulator_value eps maximize",
    "Adam": "lr betas eps weight_decay amsgrad maximize decoupled_weight_decay",
    "AdamW": "lr betas eps weight_decay amsgrad maximize",
    "Adamax": "lr betas eps weight_decay maximize",
    "Muon": "lr weight_decay momentum nesterov ns_coefficients eps ns_steps adjust_lr_fn",
    "NAdam": "lr betas eps weight_decay momentum_decay decoupled_weight_decay maximize",
    "RAdam": "lr betas eps weight_decay decoupled_weight_decay maximize",
    "RMSprop": "lr alpha eps weight_decay momentum centered maximize",
    "Rprop": "lr etas step_sizes maximize",
    "SGD": "lr momentum dampening weight_decay nesterov maximize",
}
"""What decides how torch computes the same (foreach, fused, capturable, differentiable) is the parameter server's."""

SCHEDULERS: Final[Mapping[str, str]] = {
    "ConstantLR": "factor total_iters",
    "CosineAnnealingLR": "T_max! eta_min",
    "CosineAnnealingWarmRestarts": "T_0! T_mult eta_min",
    "CyclicLR": "base_lr! max_lr! step_size_up step_size_down mode gamma scale_mode cycle_momentum base_momentum "
    "max_momentum",
    "ExponentialLR": "gamma!",
    "LinearLR": "start_factor end_factor total_iters",
    "MultiStepLR": "milestones! gamma",
    "OneCycleLR": "max_lr! total_steps epochs steps_per_epoch pct_start anneal_strategy cycle_momentum base_momentum "
    "max_momentum div_factor final_div_factor three_phase",
    "PolynomialLR": "total_iters power",
    "SequentialLR": "schedulers! milestones!",
    "StepLR": "step_size! gamma",
}
"""With an exclamation mark: what has no default."""

SHARDS_OWN: Final = frozenset({"foreach", "fused", "capturable", "differentiable", "last_epoch"})
"""That the names of torch take besides."""


def check_arguments(what: str, name: str, arguments: Mapping[str, Any]) -> None:
    """`what` is "optimizer" or "schedule", `name` one that is known. InvalidInput for an argument that it does not
    take, with the nearest one, for one that is missing, for numbers that are not finite and for a negative rate.
    """
    takes = (OPTIMIZERS if what == "optimizer" else SCHEDULERS)[name].split()
    known = [each.removesuffix("!") for each in takes]
    for argument, value in arguments.items():
        if argument not in known and argument not in SHARDS_OWN:
            raise InvalidInput(f"{what} {name} does not take '{argument}'; {_hint(argument, known)}", name=argument)
        if not all(math.isfinite(number) for number in _numbers(value)):
            raise InvalidInput(f"{what} {name} has {argument} {value}; give a finite number", name=argument)
    if missing := [each[:-1] for each in takes if each.endswith("!") and each[:-1] not in arguments]:
        raise InvalidInput(f"{what} {name} needs {' and '.join(missing)}, which it has no default for", name=missing[0])
    rate = arguments.get("lr", 0.0)
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or rate < 0:
        raise InvalidInput(f"{what} {name} has lr {rate!r}; a learning rate is a number, 0 or more", name="lr")


def _hint(argument: str, known: list[str]) -> str:
    near = get_close_matches(argument, known, 1, 0.5)
    return f"did you mean {near[0]}?" if near else f"it takes {', '.join(known)}"


def _numbers(value: object) -> Iterable[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _numbers(each)
