"""Updates of one worker each, several at a time: `ssp` with bounded staleness, and `async`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from encephalon.api.parameter_server.v1.parameter_server_pb2 import Contribution
from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.training.controller.epoch import Epoch, Range
from encephalon.training.controller.members import Worker
from encephalon.training.controller.phase import MOST_FAILURES, next_try, seed_of

__all__ = ["Pushed", "Stream"]


@dataclass(frozen=True, slots=True)
class Pushed:
    """An update that waits for its decision."""

    update: int
    worker: str
    range: Range
    report: pb.ReportRequest

    @property
    def contributions(self) -> list[Contribution]:
        return [Contribution(rank=0, attempt=0)]


class Stream:
    """Gives each worker ranges of an epoch, as many samples as its share is, and gathers what is to be decided.

    A worker begins a new update only when its own finished ones are at most `staleness` more than what was decided of
    the slowest worker there is (Ho et al., 2013); None bounds nothing. Ranges of the lost are given again, under
    another update, and the old update is to be dropped.
    """

    def __init__(
        self,
        epoch: Epoch,
        generation: int,
        *,
        first_update: int,
        version: Callable[[], int],
        size: Callable[[str], int],
        staleness: int | None = None,
        seed: int = 0,
        excused: Callable[[], bool] = lambda: False,
    ) -> None:
        """version: of the shards now; size: samples of a worker's share."""
        self.epoch = epoch
        self.update = first_update
        """The next one's number."""
        self.pushed: deque[Pushed] = deque()
        self.dropped: deque[int] = deque()
        self.closed = False
        """Nothing new is given out."""
        self.doomed = ""
        self._generation = generation
        self._version = version
        self._size = size
        self._staleness = staleness
        self._seed = seed
        self._excused = excused
        self._open: dict[int, tuple[str, Range]] = {}
        self._finished: dict[str, int] = {}
        self._decided: dict[str, int] = {}
        self._counted: dict[int, str] = {}
        """Updates that were pushed, by the worker that they count for; not one that was lost meanwhile."""
        self._failures: dict[str, int] = {}
        self._not_before: dict[str, float] = {}

    @property
    def ready(self) -> bool:
        return bool(self.pushed or self.dropped or self.doomed)

    def next(self, worker: Worker, now: float) -> pb.Share | None:
        if self.closed or not self._may_begin(worker.name) or self._not_before.get(worker.name, 0.0) > now:
            return None
        range = self.epoch.give(max(1, self._size(worker.name)))
        if range is None:
            return None
        self._open[self.update] = (worker.name, range)
        share = self._share(range)
        self.update += 1
        return share

    def done(self, worker: Worker, report: pb.ReportRequest) -> None:
        if (range := self._close(worker, report.share)) is not None:
            self._finished[worker.name] += 1
            self._counted[report.share.update] = worker.name
            self._failures.pop(worker.name, None)
            self.pushed.append(Pushed(report.share.update, worker.name, range, report))

    def back(self, worker: Worker, share: pb.Share, failure: str, now: float) -> None:
        if (range := self._close(worker, share)) is None:
            return
        self.epoch.give_back(range)
        self.dropped.append(share.update)
        if failure:
            failures = self._failures.get(worker.name, 0) + (not self._excused())
            self._failures[worker.name] = failures
            self._not_before[worker.name] = next_try(max(1, failures), now)
            if failures >= MOST_FAILURES:
                self.doomed = f"worker '{worker.name}' says: {failure}; it has failed {failures} times in a row"

    def gone(self, worker: Worker) -> None:
        # Whoever is not there holds nobody back; if it returns, it begins where the slowest is.
        for counts in (self._finished, self._decided):
            counts.pop(worker.name, None)
        self._counted = {update: name for update, name in self._counted.items() if name != worker.name}

    def joined(self, worker: str) -> None:
        """The worker counts from where the slowest one is."""
        if worker not in self._decided:
            self._finished[worker] = self._decided[worker] = min(self._decided.values(), default=0)

    def decided(self, pushed: Pushed) -> None:
        """What was pushed was applied or skipped: its samples are used up."""
        self.epoch.commit(pushed.range)
        self._count(pushed)

    def failed(self, pushed: Pushed) -> None:
        """What was pushed did not reach all shards: its samples are given again."""
        self.epoch.give_back(pushed.range)
        self.dropped.append(pushed.update)
        self._count(pushed)

    def waiting(self) -> str:
        holders = sorted({worker for worker, _ in self._open.values()})
        return f"waits for {', '.join(holders)}" if holders else "waits for a worker to ask for a share"

    def _may_begin(self, worker: str) -> bool:
        self.joined(worker)
        slowest = min(self._decided.values())
        return self._staleness is None or self._finished[worker] - slowest <= self._staleness

    def _count(self, pushed: Pushed) -> None:
        if (worker := self._counted.pop(pushed.update, None)) is not None:
            self._decided[worker] += 1

    def _close(self, worker: Worker, share: pb.Share) -> Range | None:
        holder, range = self._open.get(share.update, ("", (0, 0)))
        if holder != worker.name:
            return None
        del self._open[share.update]
        return range

    def _share(self, range: Range) -> pb.Share:
        start, stop = range
        return pb.Share(
            kind=pb.Share.KIND_TRAIN,
            generation=self._generation,
            update=self.update,
            version=self._version(),
            epoch=self.epoch.number,
            start=start,
            stop=stop,
            divisor=stop - start,
            seed=seed_of(self._seed, self.epoch.number, start),
        )
