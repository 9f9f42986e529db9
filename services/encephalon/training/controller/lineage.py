"""What was decided, in order, and what it has used up: goes back to a checkpoint as a whole, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.core.errors import FailedPrecondition
from encephalon.training.controller.epoch import Epoch, Range
from encephalon.training.controller.pace import Pace
from encephalon.training.recording.history import History

__all__ = ["Lineage", "Snapshot"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A lineage as of one version."""

    version: int = 0
    progress: pb.Progress = field(default_factory=pb.Progress)
    history: bytes = b""
    evaluations: tuple[pb.Evaluation, ...] = ()
    samples: int = 0
    moved: int = 0
    """Bytes of gradients and parameters."""

    @classmethod
    def of(cls, state: pb.RunState, history: bytes) -> Snapshot:
        return cls(
            state.checkpoint.version,
            state.progress,
            history,
            tuple(state.evaluations),
            state.samples,
            state.bytes,
        )


class Lineage:
    """Versions count decided updates; every sample of an epoch is in exactly one of them."""

    def __init__(self, samples: int, begin: Snapshot | None = None) -> None:
        begin = begin or Snapshot()
        self.version = begin.version
        self.epoch = Epoch(begin.progress.epoch, samples, begin.progress)
        self.history = History.read(begin.history)
        self.evaluations = list(begin.evaluations)
        self.samples = begin.samples
        self.moved = begin.moved
        self.last: pb.StepMetrics | None = None
        self.untold: list[pb.Evaluation] = []
        """Evaluations that are in no note of a decision yet."""
        self.pace = Pace()

    def snapshot(self) -> Snapshot:
        return Snapshot(
            self.version,
            self.epoch.progress(),
            self.history.dump(),
            tuple(self.evaluations),
            self.samples,
            self.moved,
        )

    def commit(self, metrics: pb.StepMetrics, given: Sequence[Range]) -> None:
        """An update of samples that were given out was decided."""
        for range in given:
            self.epoch.commit(range)
        self.decided(metrics)

    def decided(self, metrics: pb.StepMetrics) -> None:
        """FailedPrecondition when it is not the next version."""
        if metrics.version != self.version + 1:
            raise FailedPrecondition(f"version {metrics.version} was decided behind version {self.version}")
        self.version = metrics.version
        self.untold.clear()
        self.samples += metrics.samples
        self.moved += metrics.bytes
        self.last = metrics
        self.pace.add(metrics.at_seconds, metrics.samples)
        self.history.add(metrics)

    def replay(self, note: pb.Consumed) -> None:
        """What another control node has decided. FailedPrecondition when it does not fit what was before."""
        known = {(each.version, each.purpose) for each in self.evaluations}
        for evaluation in note.evaluations:
            if (evaluation.version, evaluation.purpose) not in known:
                self.judged(evaluation)
        while self.epoch.whole and note.epoch > self.epoch.number:
            self.next_epoch()
        if note.epoch != self.epoch.number:
            raise FailedPrecondition(f"an update of epoch {note.epoch} was decided in epoch {self.epoch.number}")
        for range in note.ranges:
            self.epoch.consume((range.start, range.stop))
        self.decided(note.metrics)

    def judged(self, evaluation: pb.Evaluation) -> None:
        self.evaluations.append(evaluation)
        self.untold.append(evaluation)
        self.history.add(evaluation)

    def next_epoch(self) -> None:
        """Everything of this one is used up."""
        self.epoch = Epoch(self.epoch.number + 1, self.epoch.samples)
