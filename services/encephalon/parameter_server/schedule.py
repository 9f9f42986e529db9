"""A torch.optim.lr_scheduler by name, and its state as JSON."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch.optim import lr_scheduler

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.core.errors import InvalidInput
from encephalon.learning.optimizers import read_arguments

__all__ = ["Schedule"]

LOG = logging.getLogger(__name__)


class Schedule:
    """Changes the rate of an optimiser (and, as OneCycleLR does, its momentum) once per applied update."""

    def __init__(self, wanted: pb.Optimizer, optimizer: torch.optim.Optimizer) -> None:
        """InvalidInput, with torch's reason, for wrong arguments."""
        arguments = read_arguments("schedule", wanted.schedule, wanted.schedule_arguments)
        self._optimizer = optimizer
        self._name = wanted.schedule
        _try(wanted.schedule, arguments, optimizer)
        self._scheduler = _made(wanted.schedule, arguments, optimizer)
        self._over = False

    def step(self) -> None:
        try:
            self._scheduler.step()
        except ValueError as error:
            # OneCycleLR knows no rate behind its last step. The last one stays, for the update has been applied.
            if not self._over:
                LOG.warning("the schedule is over, its last rate stays", extra={"cause": str(error)})
            self._over = True

    def state(self) -> dict[str, Any]:
        """JSON; what it leaves out follows from the arguments."""
        group = {name: value for name, value in self._optimizer.param_groups[0].items() if name != "params"}
        return {"name": self._name, "scheduler": _plain(self._scheduler.state_dict()), "group": _plain(group)}

    def restore(self, state: dict[str, Any]) -> None:
        """Raises InvalidInput for the state of another schedule."""
        if state.get("name") != self._name:
            raise InvalidInput(f"the checkpoint has the state of schedule {state.get('name')!r}, not of {self._name}")
        group = self._optimizer.param_groups[0]
        for name, value in state["group"].items():
            group[name] = tuple(value) if isinstance(value, list) else value
        self._scheduler.load_state_dict(dict(state["scheduler"]))


def _try(name: str, arguments: dict[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """Some schedules look at their arguments only when they are stepped, when an update would be half applied."""
    other = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])
    other.defaults = dict(optimizer.defaults)
    other.param_groups[0].update(optimizer.defaults)
    schedule = _made(name, arguments, other)
    other.step()  # a schedule warns when it is stepped before
    try:
        schedule.step()
    except (TypeError, ArithmeticError) as error:
        raise InvalidInput(f"schedule {name} does not take its arguments: {error}", name=name) from error
    except ValueError:
        LOG.debug("the schedule has no second step")


def _made(name: str, arguments: dict[str, Any], optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    if name == "SequentialLR":
        parts = [_made(part["name"], part.get("arguments", {}), optimizer) for part in arguments["schedulers"]]
        arguments = {**arguments, "schedulers": parts}
    try:
        made = getattr(lr_scheduler, name)(optimizer, **arguments)
    except (TypeError, ValueError, KeyError, AttributeError, ZeroDivisionError, IndexError) as error:
        raise InvalidInput(f"schedule {name} does not take its arguments: {error}", name=name) from error
    if not isinstance(made, lr_scheduler.LRScheduler):
        raise InvalidInput(f"{name} is no schedule of torch.optim.lr_scheduler", name=name)
    return made


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    return {name: _listed(each) for name, each in value.items() if _fits(each)}


def _fits(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_fits(each) for each in value)
    if isinstance(value, dict):
        return all(isinstance(name, str) for name in value)
    return value is None or isinstance(value, (bool, int, float, str))


def _listed(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_listed(each) for each in value]
    return _plain(value) if isinstance(value, dict) else value
