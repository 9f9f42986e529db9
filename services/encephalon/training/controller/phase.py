"""What a run does now, as far as workers see it: where their shares come from and go to."""

from __future__ import annotations

import hashlib
from typing import Final, Protocol

from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.training.controller.members import Worker

__all__ = ["MOST_ATTEMPTS", "MOST_FAILURES", "Phase", "next_try", "seed_of"]

MOST_FAILURES: Final = 8
"""Times that one share may fail, with all shards there, before the run ends: about ten seconds of trying."""
MOST_ATTEMPTS: Final = 50
"""Workers that may be lost over one share. A share that kills whoever computes it would otherwise be given for ever."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0


class Phase(Protocol):
    @property
    def doomed(self) -> str:
        """Why it can never end well; empty while it can."""
        ...

    @property
    def ready(self) -> bool:
        """Whether who leads the run has something to do."""
        ...

    def next(self, worker: Worker, now: float) -> pb.Share | None:
        """A share for a worker that holds none; None when there is none for it now."""
        ...

    def done(self, worker: Worker, report: pb.ReportRequest) -> None:
        """The share that the worker held was done."""
        ...

    def back(self, worker: Worker, share: pb.Share, failure: str, now: float) -> None:
        """The share was not done: the worker is gone (no `failure`), or says that it could not."""
        ...

    def gone(self, worker: Worker) -> None:
        """What was meant for this worker is for others."""
        ...

    def waiting(self) -> str:
        """What it waits for, as a sentence."""
        ...


def seed_of(seed: int, epoch: int, start: int) -> int:
    """For everything random in a share: depends on the samples alone, not on who computes them, or how often."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{epoch}/{start}".encode()).digest()[:8], "little") >> 1


def next_try(failures: int, now: float) -> float:
    """When a share that has failed so often is given again; at once after a loss, which is no failure."""
    return now + min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** (failures - 1)) if failures else now
