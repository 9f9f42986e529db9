"""Cuts the samples of an update into the parts of its workers."""

from __future__ import annotations

from collections.abc import Sequence

from encephalon.core.errors import InvalidInput
from encephalon.training.controller.epoch import Range
from encephalon.training.controller.members import Worker
from encephalon.training.controller.rounds import Part
from encephalon.training.planning import Planner
from encephalon.training.runs import RunSettings

__all__ = ["buffers_of", "multiple_of", "parts_of_update", "sizes_of_round"]


def parts_of_update(
    settings: RunSettings, planner: Planner, workers: Sequence[Worker], samples: Range, workers_wanted: int
) -> list[Part]:
    """One part per rank, in order, without ranks that get nothing; their samples are those of the range, each once.

    Plan `fixed`: as many ranks as workers are wanted, whoever computes them. Else a rank for each of `workers`.
    """
    start, stop = samples
    if settings.plan == "fixed":
        names = [str(rank) for rank in range(workers_wanted)]
        shares = planner.shares(names, stop - start, {}, multiple_of(workers))
        return _parts(start, [("", size) for size in shares.values()])
    limits = {worker.name: worker.most_samples for worker in workers}
    try:
        shares = planner.shares(list(limits), stop - start, limits, multiple_of(workers))
    except InvalidInput:
        # They cannot hold it all at the same time; so in pieces that the smallest can hold, one after the other.
        return _parts(start, [("", size) for size in _pieces(stop - start, workers)])
    return _parts(start, list(shares.items()))


def sizes_of_round(
    settings: RunSettings, planner: Planner, workers: Sequence[Worker], workers_wanted: int
) -> dict[str, int]:
    """Of ssp and async: samples of each worker's next share; together they are the batch, where limits allow it."""
    limits = {worker.name: worker.most_samples for worker in workers}
    if settings.plan == "fixed":
        equal = max(1, settings.batch_size // workers_wanted)
        shares = dict.fromkeys(limits, equal)
    else:
        try:
            shares = planner.shares(list(limits), settings.batch_size, limits, multiple_of(workers))
        except InvalidInput:
            shares = dict.fromkeys(limits, settings.batch_size)
    return {name: min(size, limits[name] or size) for name, size in shares.items()}


def multiple_of(workers: Sequence[Worker]) -> int:
    """Samples of a micro-batch; 1 when nobody has any."""
    return max((worker.micro_batch for worker in workers), default=1) or 1


def _parts(start: int, sizes: Sequence[tuple[str, int]]) -> list[Part]:
    parts: list[Part] = []
    for rank, (worker, size) in enumerate(sizes):
        if size:
            parts.append(Part(rank, start, start + size, worker))
        start += size
    return parts


def _pieces(samples: int, workers: Sequence[Worker]) -> list[int]:
    size = min(worker.most_samples for worker in workers if worker.most_samples)
    full, rest = divmod(samples, size)
    return [size] * full + [rest] * bool(rest)


def buffers_of(workers: int) -> int:
    """Contributions that may wait at a shard at the same time."""
    return max(64, 4 * workers)
