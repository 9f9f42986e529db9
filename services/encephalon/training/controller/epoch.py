"""The samples of one epoch: which were given out, and which an update has used up. Each is used exactly once."""

from __future__ import annotations

from collections.abc import Sequence

from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.core.errors import FailedPrecondition

__all__ = ["Epoch", "Range"]

Range = tuple[int, int]
"""Samples `start` to `stop` of the epoch's order."""


class Epoch:
    """Ranges are given, and then either committed or given back; what was given back is given first.

    Nothing that is given out is lost with a checkpoint: `progress` counts it as never given, and whoever goes on from
    there gives it again.
    """

    def __init__(self, number: int, samples: int, progress: pb.Progress | None = None) -> None:
        """FailedPrecondition when `progress` does not fit so many samples."""
        self.number = number
        self.samples = samples
        self._free: list[Range] = [(0, samples)] if samples else []
        self._given: set[Range] = set()
        if progress is not None:
            self._free = _checked(progress, samples)

    @property
    def done(self) -> int:
        """Samples that were committed."""
        return self.samples - self.left - sum(stop - start for start, stop in self._given)

    @property
    def left(self) -> int:
        """Samples that are free to be given."""
        return sum(stop - start for start, stop in self._free)

    @property
    def whole(self) -> bool:
        """Everything was committed."""
        return not self._free and not self._given

    def give(self, most: int) -> Range | None:
        """The first free samples, at most so many; None when all are given out."""
        if not self._free or most < 1:
            return None
        start, end = self._free[0]
        stop = min(end, start + most)
        self._free[0:1] = [(stop, end)] if stop < end else []
        self._given.add((start, stop))
        return start, stop

    def give_back(self, range: Range) -> None:
        """FailedPrecondition for a range that is not given out."""
        self._take_in(range)
        self._free = _merged([*self._free, range])

    def commit(self, range: Range) -> None:
        """FailedPrecondition for a range that is not given out: it was committed, or given back, already."""
        self._take_in(range)

    def consume(self, range: Range) -> None:
        """Commits what is free, as another control node says that it did."""
        start, stop = range
        for at, (first, last) in enumerate(self._free):
            if first <= start < stop <= last:
                self._free[at : at + 1] = [piece for piece in ((first, start), (stop, last)) if piece[0] < piece[1]]
                return
        raise FailedPrecondition(f"samples {start} to {stop} of epoch {self.number} were used up already")

    def progress(self) -> pb.Progress:
        """Everything that was not committed, as if nothing were given out."""
        free = _merged([*self._free, *self._given])
        tail = free.pop() if free and free[-1][1] == self.samples else (self.samples, self.samples)
        returned = [pb.Range(start=start, stop=stop) for start, stop in free]
        return pb.Progress(epoch=self.number, position=tail[0], returned=returned)

    def _take_in(self, range: Range) -> None:
        if range not in self._given:
            raise FailedPrecondition(f"samples {range[0]} to {range[1]} of epoch {self.number} are not given out")
        self._given.remove(range)


def _merged(ranges: Sequence[Range]) -> list[Range]:
    merged: list[Range] = []
    for start, stop in sorted(ranges):
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], stop)
        else:
            merged.append((start, stop))
    return merged


def _checked(progress: pb.Progress, samples: int) -> list[Range]:
    ranges = [(r.start, r.stop) for r in progress.returned]
    if progress.position < samples:
        ranges.append((progress.position, samples))
    at = 0
    for start, stop in sorted(ranges):
        if not at <= start < stop <= samples:
            raise FailedPrecondition(
                f"the run was at samples {start} to {stop} of epoch {progress.epoch}, which has {samples}; "
                "it cannot go on with other data"
            )
        at = stop
    return _merged(ranges)
