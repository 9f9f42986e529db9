"""The dynamic batch size algorithm of Ye et al. (arXiv 2007.11831), and the two plans that know no speed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Final

from encephalon.core.errors import InvalidInput
from encephalon.training.planning.apportionment import apportioned
from encephalon.training.planning.speed import Speed
from encephalon.training.runs import RunSettings

__all__ = ["Planner"]

FIRST: Final = 3
"""Updates after which the first measurements are used; the very first one warms up caches and is no measure."""


class Planner:
    """How a batch is shared among workers.

    `dynamic`: with share p and pure compute time t a worker's speed is v = p / t, and its next share p' = v / sum(v).
    The batch stays what it is. Where a share has a fixed cost (t = a + c b) the iteration still ends at equal times:
    a larger share is measured as faster, but never by as much as it is larger. Until there are measurements the
    shares are equal, and a new worker begins with the median speed.

    `equal`: as if all were equally fast. `fixed`: so too, but the first ones named have the larger shares, so that a
    caller who names the ranks of a run always gets the same.
    """

    def __init__(self, settings: RunSettings) -> None:
        self._settings = settings
        self._speeds: dict[str, Speed] = {}
        self._planned: int | None = None

    def shares(
        self, workers: Sequence[str], batch: int, limits: Mapping[str, int], multiples_of: int = 1
    ) -> dict[str, int]:
        """Samples by worker, for every worker named, in their order; the sum is the batch.

        limits: most samples of a worker; 0 or none for no limit. multiples_of: every share is a multiple of it (a
        micro-batch of a pipeline), but one that has the rest of the batch too.
        Everybody has 1 (or one multiple) at least; when the batch is too small for that, the slowest have 0 and sit
        this one out. InvalidInput for no workers, two of one name, a batch or multiple below 1, and for a batch that
        does not fit into the workers' limits.
        """
        _check(workers, batch, limits, multiples_of)
        if self._settings.plan != "fixed":
            return _shared(batch, self._weights(workers), limits, multiples_of)
        # Ties are broken by name; so named, the order of the ranks is theirs too.
        ranks = {f"{rank:09}": worker for rank, worker in enumerate(workers)}
        rooms = {rank: limits.get(worker, 0) for rank, worker in ranks.items()}
        shares = _shared(batch, dict.fromkeys(ranks, 1.0), rooms, multiples_of)
        return {worker: shares[rank] for rank, worker in ranks.items()}

    def observe(self, worker: str, samples: int, compute_seconds: float) -> None:
        """A share was computed: forward and backward passes only, without waiting for anybody."""
        self._speeds.setdefault(worker, Speed(self._settings.smoothing)).measure(samples, compute_seconds)

    def due(self, update: int, epoch_began: bool) -> bool:
        """Whether this update has a new plan; if so, what was measured until now goes into `speeds` and `shares`.

        To be asked once for every update, before its shares; asking again for the same update is harmless.
        """
        if update != self._planned:
            if not self._time(update, epoch_began):
                return False
            self._settle()
            self._planned = update
        return True

    def speeds(self) -> dict[str, float]:
        """Samples per second, as the plan in force has them; of workers that were measured."""
        return {worker: speed.value for worker, speed in self._speeds.items() if speed.value is not None}

    def restore(self, speeds: Mapping[str, float]) -> None:
        """Goes on with what `speeds` said, in another process."""
        self._speeds = {
            worker: Speed(self._settings.smoothing, value) for worker, value in speeds.items() if 0 < value < math.inf
        }

    def forget(self, worker: str) -> None:
        """The worker is gone; one of that name begins with the median speed."""
        self._speeds.pop(worker, None)

    def _time(self, update: int, epoch_began: bool) -> bool:
        if self._planned is None:
            return True
        if self._settings.plan != "dynamic":
            return False
        if self._settings.replan == "epoch":
            return epoch_began
        every = self._settings.replan_every
        return abs(update - self._planned) >= (every if self.speeds() else min(every, FIRST))

    def _settle(self) -> None:
        known = self.speeds()
        begin = median(known.values()) if known else None
        for speed in self._speeds.values():
            speed.settle(begin)

    def _weights(self, workers: Sequence[str]) -> dict[str, float]:
        known = self.speeds() if self._settings.plan == "dynamic" else {}
        here = [known[worker] for worker in workers if worker in known] or list(known.values())
        begin = median(here) if here else 1.0
        return {worker: known.get(worker, begin) for worker in workers}


def _shared(batch: int, weights: Mapping[str, float], limits: Mapping[str, int], multiple: int) -> dict[str, int]:
    most = {worker: limits.get(worker, 0) or batch for worker in weights}
    units, rest = divmod(batch, multiple)
    try:
        dealt = apportioned(units, weights, {worker: room // multiple for worker, room in most.items()})
        shares = {worker: dealt[worker] * multiple for worker in weights}
        if rest:
            shares[_one_for(rest, shares, most, weights)] += rest
    except InvalidInput as error:
        total = sum(most.values())
        raise InvalidInput(
            f"a batch of {batch} samples, in multiples of {multiple}, does not fit into {len(most)} workers that hold "
            f"{total} together; give more workers or a smaller batch",
            batch=batch,
            limits=total,
        ) from error
    return shares


def _one_for(rest: int, shares: Mapping[str, int], most: Mapping[str, int], weights: Mapping[str, float]) -> str:
    """Who ends first with the rest of the batch on top, among those who have room for it."""
    able = [worker for worker in shares if shares[worker] + rest <= most[worker]]
    if not able:
        raise InvalidInput(f"nobody has room for {rest} samples more")
    return min(able, key=lambda worker: ((shares[worker] + rest) / weights[worker], worker))


def _check(workers: Sequence[str], batch: int, limits: Mapping[str, int], multiple: int) -> None:
    if not workers or len(set(workers)) != len(workers):
        raise InvalidInput(f"a batch is shared among different workers, not among {list(workers)!r}")
    if batch < 1 or multiple < 1:
        raise InvalidInput(f"a batch of {batch} samples in multiples of {multiple} is none; both are 1 or more")
    if negative := [worker for worker in workers if limits.get(worker, 0) < 0]:
        raise InvalidInput(f"worker '{negative[0]}' holds {limits[negative[0]]} samples, expected 0 or more")
