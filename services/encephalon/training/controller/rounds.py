"""A fixed amount of work that several workers do together: an update of `sync`, an evaluation, the first checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from encephalon.api.parameter_server.v1.parameter_server_pb2 import Contribution
from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.training.controller.members import Worker
from encephalon.training.controller.phase import MOST_ATTEMPTS, MOST_FAILURES, next_try, seed_of

__all__ = ["Part", "Round"]


@dataclass(slots=True, eq=False)
class Part:
    rank: int
    start: int
    stop: int
    worker: str = ""
    """For whom it is meant; empty: for whoever asks."""
    attempt: int = 0
    holder: str = ""
    report: pb.ReportRequest | None = None
    failures: int = 0
    not_before: float = 0.0

    @property
    def samples(self) -> int:
        return self.stop - self.start


class Round:
    """Every part is done once. A part whose worker is lost gets the next attempt and is done by another.

    template: of the shares; rank, attempt, range and seed are filled in. divisible: a part that is left over may be
    cut for a worker that has no room for all of it; not in a run whose sums must repeat bit for bit.
    excused: whether a failure says nothing against the share, because a shard is away.
    """

    def __init__(
        self,
        template: pb.Share,
        parts: Sequence[Part],
        *,
        seed: int = 0,
        divisible: bool = False,
        excused: Callable[[], bool] = lambda: False,
    ) -> None:
        self.parts = list(parts)
        self.doomed = ""
        self._template = template
        self._seed = seed
        self._divisible = divisible
        self._excused = excused

    @property
    def whole(self) -> bool:
        return all(part.report is not None for part in self.parts)

    @property
    def ready(self) -> bool:
        return self.whole or bool(self.doomed)

    @property
    def reports(self) -> list[pb.ReportRequest]:
        """In the order of the ranges, once it is whole."""
        ordered = sorted(self.parts, key=lambda part: (part.start, part.rank))
        return [part.report for part in ordered if part.report is not None]

    @property
    def contributions(self) -> list[Contribution]:
        return [Contribution(rank=part.rank, attempt=part.attempt) for part in self.parts]

    def next(self, worker: Worker, now: float) -> pb.Share | None:
        part = self._for(worker, now)
        if part is None:
            return None
        part.holder = worker.name
        return self._share(part)

    def done(self, worker: Worker, report: pb.ReportRequest) -> None:
        part = self._held(worker, report.share)
        if part is not None:
            part.holder, part.report, part.failures = "", report, 0

    def back(self, worker: Worker, share: pb.Share, failure: str, now: float) -> None:
        part = self._held(worker, share)
        if part is None:
            return
        self._again(part)
        if failure:
            part.failures += not self._excused()
            part.not_before = next_try(max(1, part.failures), now)
        if part.failures >= MOST_FAILURES:
            self.doomed = f"worker '{worker.name}' says: {failure}; its share was tried {part.attempt} times"
        elif part.attempt >= MOST_ATTEMPTS:
            self.doomed = f"samples {part.start} to {part.stop} were given {part.attempt} times and never done"

    def gone(self, worker: Worker) -> None:
        for part in self.parts:
            if part.worker == worker.name:
                part.worker = ""

    def retake(self) -> None:
        """All contributions are wanted once more: a shard has waited in vain for what was reported as pushed."""
        for part in self.parts:
            if part.report is not None:
                self._again(part)

    def waiting(self) -> str:
        holders = sorted({part.holder for part in self.parts if part.holder})
        if holders:
            return f"waits for {_listed(holders)}"
        meant = sorted({part.worker for part in self.parts if part.worker and part.report is None})
        if meant:
            asks = "asks for its share" if len(meant) == 1 else "ask for their shares"
            return f"waits until {_listed(meant)} {asks}"
        largest = max((part.samples for part in self.parts if part.report is None), default=0)
        return f"waits for a worker that takes a share of {largest} samples" if largest else "waits for a worker"

    def _for(self, worker: Worker, now: float) -> Part | None:
        ready = [p for p in self.parts if p.report is None and not p.holder and p.not_before <= now]
        meant = [part for part in ready if part.worker == worker.name] or [part for part in ready if not part.worker]
        fitting = [part for part in meant if not worker.most_samples or part.samples <= worker.most_samples]
        if fitting:
            return fitting[0]
        return self._cut(meant[0], worker) if meant and self._divisible else None

    def _cut(self, part: Part, worker: Worker) -> Part | None:
        room = worker.most_samples - worker.most_samples % max(1, worker.micro_batch)
        if room < 1:
            return None
        rest = Part(1 + max(p.rank for p in self.parts), part.start + room, part.stop, not_before=part.not_before)
        part.stop = part.start + room
        self.parts.append(rest)
        return part

    def _share(self, part: Part) -> pb.Share:
        share = pb.Share()
        share.CopyFrom(self._template)
        share.rank, share.attempt, share.start, share.stop = part.rank, part.attempt, part.start, part.stop
        share.seed = seed_of(self._seed, share.epoch, share.start)
        if share.key:
            share.key = f"{share.key}-{part.attempt}"
        return share

    def _held(self, worker: Worker, share: pb.Share) -> Part | None:
        for part in self.parts:
            if (part.rank, part.attempt, part.holder) == (share.rank, share.attempt, worker.name):
                return part
        return None

    def _again(self, part: Part) -> None:
        part.attempt += 1
        part.holder, part.worker, part.report = "", "", None


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1])] * (len(names) > 1) + [names[-1]])
