from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.core.errors import InvalidInput
from encephalon.learning.optimizers import SCHEDULES
from encephalon.parameter_server.schedule import Schedule
from tests.unit.parameter_server.shards import optimizer

PARTS = [
    {"name": "LinearLR", "arguments": {"start_factor": 0.1, "total_iters": 3}},
    {"name": "CosineAnnealingLR", "arguments": {"T_max": 8}},
]
ARGUMENTS: dict[str, dict[str, Any]] = {
    "ConstantLR": {"factor": 0.5, "total_iters": 6},
    "CosineAnnealingLR": {"T_max": 7},
    "CosineAnnealingWarmRestarts": {"T_0": 3, "T_mult": 2},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3, "mode": "exp_range", "gamma": 0.9},
    "ExponentialLR": {"gamma": 0.9},
    "LinearLR": {"total_iters": 7},
    "MultiStepLR": {"milestones": [2, 6, 6, 9]},
    "OneCycleLR": {"max_lr": 1.0, "total_steps": 9},
    "PolynomialLR": {"total_iters": 8, "power": 2.0},
    "SequentialLR": {"schedulers": PARTS, "milestones": [3]},
    "StepLR": {"step_size": 2},
}


class Stepped:
    """An optimiser and its schedule, as a shard steps them."""

    def __init__(self, wanted: pb.Optimizer) -> None:
        self.parameter = torch.nn.Parameter(torch.zeros(1))
        self.optimizer = torch.optim.SGD([self.parameter], lr=0.3, momentum=0.9)
        self.schedule = Schedule(wanted, self.optimizer)

    def rates(self, steps: int) -> list[tuple[float, float]]:
        found = []
        for _ in range(steps):
            self.optimizer.step()
            self.schedule.step()
            group = self.optimizer.param_groups[0]
            found.append((group["lr"], group["momentum"]))
        return found


def test_every_schedule_is_tried() -> None:
    assert set(ARGUMENTS) == SCHEDULES


@pytest.mark.parametrize("before", [0, 1, 4, 7])
@pytest.mark.parametrize("name", sorted(ARGUMENTS))
def test_a_schedule_goes_on_where_it_was(name: str, before: int) -> None:
    wanted = optimizer("SGD", name, ARGUMENTS[name])
    quiet, first, second = Stepped(wanted), Stepped(wanted), Stepped(wanted)
    expected = quiet.rates(before + 8)[before:]
    first.rates(before)
    second.schedule.restore(json.loads(json.dumps(first.schedule.state())))
    assert second.rates(8) == expected


def test_another_schedule_does_not_go_on() -> None:
    state = Stepped(optimizer("SGD", "StepLR", {"step_size": 2})).schedule.state()
    with pytest.raises(InvalidInput, match="of schedule 'StepLR', not of LinearLR"):
        Stepped(optimizer("SGD", "LinearLR")).schedule.restore(state)
