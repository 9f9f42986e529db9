"""How a share is computed: in this process (`local`), or by a process per region (`training.pipeline`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.api.training.v1 import training_pb2 as training_pb
from encephalon.learning.samples import Batch

__all__ = ["Computation", "Outcome"]


@dataclass(frozen=True)
class Outcome:
    """Sums over the samples of a share, as `ReportRequest` has them; bytes are those of this share."""

    samples: int
    loss: float
    correct: dict[str, int] = field(default_factory=dict)
    compute_seconds: float = 0.0
    sent_bytes: int = 0
    received_bytes: int = 0


class Computation(Protocol):
    """One share at a time, in one thread that may block; only `drop` comes from another."""

    def begin(self, layout: pb.Layout) -> None:
        """The worker has joined, for the first time or again. Before any share."""
        ...

    def train(self, share: training_pb.Share, batch: Batch) -> Outcome:
        """Pulls parameters of the share's version, and pushes the gradients of the sum of the samples' losses over
        `share.divisor`; all shards have them when it returns.

        Raises FailedPrecondition when the share is out of date, Cancelled when it was dropped, Unavailable or
        DeadlineExceeded when it may be tried again, anything else when it cannot be computed.
        """
        ...

    def evaluate(self, share: training_pb.Share, batch: Batch) -> Outcome:
        """Judges; nothing is pushed. Raises as `train`."""
        ...

    def drop(self) -> None:
        """Ends the share that is being computed; harmless when there is none."""
        ...

    def close(self) -> None:
        """Twice is harmless."""
        ...
