"""Workers that compute in simulated time: a fixed cost per share, and a cost per sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from encephalon.training.planning import Planner
from encephalon.training.runs import RunSettings

__all__ = ["Cluster", "settings"]


def settings(**changes: object) -> RunSettings:
    return RunSettings.checked(**{"run": "r", "brain": "brain:b@1", "data": "data_set:d@1", "workers": 1, **changes})


@dataclass
class Cluster:
    """A share of b samples takes `fixed + b / speed` seconds."""

    planner: Planner
    speeds: dict[str, float]
    batch: int
    fixed: float = 0.0
    update: int = 0
    shares: Mapping[str, int] | None = None

    def steps(self, count: int, slow: Mapping[str, float] | None = None, per_epoch: int = 10) -> list[float]:
        """Runs so many updates; the seconds that each took. slow: times longer, by worker, for these updates only."""
        return [self._step(slow or {}, per_epoch) for _ in range(count)]

    def ideal(self) -> float:
        """Seconds of an update that is shared as well as can be."""
        return self.fixed + self.batch / sum(self.speeds.values())

    def _step(self, slow: Mapping[str, float], per_epoch: int) -> float:
        began = self.update % per_epoch == 0
        self.update += 1
        if self.planner.due(self.update, began) or self.shares is None:
            self.shares = self.planner.shares(list(self.speeds), self.batch, {})
        times = {
            worker: (self.fixed + share / self.speeds[worker]) * slow.get(worker, 1.0)
            for worker, share in self.shares.items()
        }
        for worker, seconds in times.items():
            self.planner.observe(worker, self.shares[worker], seconds)
        return max(times.values())
