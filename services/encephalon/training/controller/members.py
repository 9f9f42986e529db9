"""Who works in a run: joined, heard of, lost, left. Knows no clock; the time is told to it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.core.errors import FailedPrecondition, InvalidInput, Overloaded

__all__ = ["Members", "Worker"]

JUMP_S: Final = 1.0
"""Ticks come four times a second. When one is so late, this process itself has slept, and nobody could be heard."""
MOST_WORKERS: Final = 4096
MOST_FENCED: Final = 4096
LONGEST_NAME: Final = 200


@dataclass(slots=True, eq=False)
class Worker:
    name: str
    incarnation: str
    host: str
    seen: float
    most_samples: int = 0
    micro_batch: int = 0
    state: pb.WorkerStatus.State.ValueType = pb.WorkerStatus.STATE_WAITING
    held: pb.Share | None = None
    """Given to it and not reported."""
    dropped: bool = False
    """What it held was taken away, and it was not told yet."""
    samples: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    compute_seconds: float = 0.0
    """Of its last share."""
    share: int = 0
    """Samples of its last share."""

    @property
    def live(self) -> bool:
        return self.state in (pb.WorkerStatus.STATE_WORKING, pb.WorkerStatus.STATE_WAITING)

    def hold(self, share: pb.Share) -> None:
        self.held, self.dropped = share, False
        self.state = pb.WorkerStatus.STATE_WORKING

    def release(self) -> pb.Share | None:
        """What it held; it waits now, when it is there."""
        share, self.held = self.held, None
        if self.live:
            self.state = pb.WorkerStatus.STATE_WAITING
        return share


class Members:
    def __init__(self, death_s: float) -> None:
        self._death_s = death_s
        self._workers: dict[str, Worker] = {}
        self._fenced: OrderedDict[str, None] = OrderedDict()
        self._ticked: float | None = None

    def __iter__(self) -> Iterator[Worker]:
        """All that ever joined, by name."""
        return iter([self._workers[name] for name in sorted(self._workers)])

    @property
    def present(self) -> list[Worker]:
        return [worker for worker in self if worker.live]

    def get(self, name: str) -> Worker | None:
        return self._workers.get(name)

    def join(self, member: pb.Member, host: str, now: float) -> tuple[Worker, Worker | None]:
        """The worker, and who is out because of it: the incarnation of that name that was in the run until now.

        FailedPrecondition for an incarnation that another one has taken the place of, InvalidInput for a name that is
        none, Overloaded when there are too many.
        """
        _check(member, host)
        if member.incarnation in self._fenced:
            raise FailedPrecondition(
                f"another process has joined as worker '{member.worker}'; this one is out of the run",
                worker=member.worker,
            )
        before = self._workers.get(member.worker)
        if before is None and len(self._workers) >= MOST_WORKERS:
            self._make_room()
        if before is not None and before.incarnation != member.incarnation:
            self._fenced[before.incarnation] = None
            if len(self._fenced) > MOST_FENCED:
                self._fenced.popitem(last=False)
        worker = Worker(member.worker, member.incarnation, host, now)
        if before is not None:
            worker.samples, worker.share = before.samples, before.share
            worker.sent_bytes, worker.received_bytes = before.sent_bytes, before.received_bytes
        self._workers[member.worker] = worker
        return worker, before if before is not None and before.live else None

    def _make_room(self) -> None:
        """Names of workers that come and go may be new each time; who was gone longest is forgotten."""
        gone = [worker for worker in self._workers.values() if not worker.live]
        if not gone:
            raise Overloaded(f"the run has {MOST_WORKERS} workers already")
        del self._workers[min(gone, key=lambda worker: worker.seen).name]

    def heard(self, member: pb.Member, now: float) -> Worker | None:
        """The worker, which was heard of now; None when it has to join (again)."""
        worker = self._workers.get(member.worker)
        if worker is None or worker.incarnation != member.incarnation or not worker.live:
            return None
        worker.seen = now
        return worker

    def leave(self, worker: Worker) -> None:
        worker.state = pb.WorkerStatus.STATE_LEFT

    def tick(self, now: float) -> list[Worker]:
        """Those who are lost since the last tick. To be called several times a second."""
        late = self._ticked is not None and now - self._ticked > JUMP_S
        self._ticked = now
        if late:
            for worker in self.present:
                worker.seen = now
        lost = [worker for worker in self.present if now - worker.seen > self._death_s]
        for worker in lost:
            worker.state = pb.WorkerStatus.STATE_LOST
        return lost


def _check(member: pb.Member, host: str) -> None:
    for what, value in (("worker", member.worker), ("incarnation", member.incarnation), ("host", host)):
        if not value or len(value.encode(errors="replace")) > LONGEST_NAME:
            raise InvalidInput(f"the {what} {value[:40]!r} must have 1 to {LONGEST_NAME} bytes", field=what)
