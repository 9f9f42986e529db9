"""Where workers come to: who joins, is given a share, reports it, leaves. Synchronous; the time is an argument."""

from __future__ import annotations

from typing import Final

from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.core.errors import FailedPrecondition
from encephalon.training.controller.members import Members, Worker
from encephalon.training.controller.model import Model
from encephalon.training.controller.phase import Phase

__all__ = ["Desk"]

KEPT: Final = ("kind", "generation", "update", "rank", "attempt", "epoch", "start", "stop", "purpose")
"""What of a share says which one it is."""


class Desk:
    """Every worker holds one share at most, and every share is held by one worker at most.

    A share is taken from a worker that is lost, leaves, joins anew or says that it failed, and from all when what the
    run does is over; never because it takes long.
    """

    def __init__(self, run: str, death_s: float) -> None:
        self.run = run
        self.members = Members(death_s)
        self.model: Model | None = None
        self.finished = ""
        """Why the run is over; empty while it is not."""
        self.lost = 0
        """Workers that were lost, or came back as another process, while they were in the run."""
        self.began: float | None = None
        """When the first share to learn from was given."""
        self._phase: Phase | None = None
        self._digest: str | None = None
        self._code: str | None = None

    @property
    def phase(self) -> Phase | None:
        return self._phase

    @property
    def agreed(self) -> Model:
        """FailedPrecondition before the first worker has joined."""
        if self.model is None:
            raise FailedPrecondition("no worker has said yet what this run would learn")
        return self.model

    def expect(self, digest: str) -> None:
        """The run has begun already, with a model of this digest."""
        self._digest = digest or None

    def begin(self, phase: Phase | None) -> None:
        """From now on shares come from here; what is held of the phase before is taken away."""
        for worker in self.members:
            if worker.release() is not None:
                worker.dropped = True
        self._phase = phase

    def join(self, request: pb.JoinRequest, now: float) -> Worker:
        """FailedPrecondition for another run, model, data or version; InvalidInput for what cannot be."""
        self._check_run(request.run)
        model = Model.of(request)
        self._agree(model, request)
        worker, before = self.members.join(request.member, request.host, now)
        if before is not None:
            self.lost += before.incarnation != worker.incarnation
            self._give_up(before, "", now)
        worker.most_samples, worker.micro_batch = request.most_samples, request.micro_batch
        return worker

    def heartbeat(self, request: pb.HeartbeatRequest, now: float) -> pb.HeartbeatResponse:
        self._check_run(request.run)
        worker = self.members.heard(request.member, now)
        if worker is None:
            return pb.HeartbeatResponse(rejoin=True, drop=True)
        return pb.HeartbeatResponse(drop=worker.dropped)

    def next(self, request: pb.NextRequest, now: float) -> pb.NextResponse | None:
        """None when there is nothing to do yet."""
        self._check_run(request.run)
        if self.finished:
            return pb.NextResponse(finished=self.finished)
        worker = self.members.heard(request.member, now)
        if worker is None:
            return pb.NextResponse(rejoin=True)
        if worker.held is None:
            share = self._phase.next(worker, now) if self._phase is not None else None
            if share is None:
                return None
            worker.hold(share)
            if self.began is None and share.kind == pb.Share.KIND_TRAIN:
                self.began = now
        worker.dropped = False
        return pb.NextResponse(share=worker.held)

    def report(self, request: pb.ReportRequest, now: float) -> pb.ReportResponse:
        """A report of what the worker does not hold (any more) changes nothing."""
        self._check_run(request.run)
        worker = self.members.heard(request.member, now)
        if worker is None:
            return pb.ReportResponse(rejoin=True)
        held = worker.held
        if held is None or self._phase is None or not _same(held, request.share):
            return pb.ReportResponse()
        if failure := request.failure or _absurd(request):
            self._give_up(worker, failure[:1000], now)
        else:
            worker.release()
            _count(worker, request)
            self._phase.done(worker, request)
        return pb.ReportResponse()

    def leave(self, request: pb.LeaveRequest, now: float) -> None:
        self._check_run(request.run)
        if (worker := self.members.heard(request.member, now)) is not None:
            self.members.leave(worker)
            self._give_up(worker, "", now)

    def tick(self, now: float) -> list[Worker]:
        """Those who are lost since the last tick; what they held is given to others."""
        lost = self.members.tick(now)
        for worker in lost:
            self.lost += 1
            self._give_up(worker, "", now)
        return lost

    def _give_up(self, worker: Worker, failure: str, now: float) -> None:
        share = worker.release()
        if self._phase is not None:
            if share is not None:
                self._phase.back(worker, share, failure, now)
            if not failure:
                self._phase.gone(worker)

    def _agree(self, model: Model, request: pb.JoinRequest) -> None:
        name = request.member.worker
        if self._digest is not None and model.digest != self._digest:
            raise FailedPrecondition(
                f"worker '{name}' would train another model than this run: the digest of its networks, weights and "
                f"data is {model.digest[:12]!r} and not {self._digest[:12]!r}",
                worker=name,
            )
        if self.model is not None:
            self.model.check(model, name)
        if self._code not in (None, request.code_version):
            raise FailedPrecondition(
                f"worker '{name}' is of version {request.code_version[:40]!r} and the others of {self._code!r}; "
                "start it with the same version of Encephalon",
                worker=name,
            )
        if self.model is None:
            self.model, self._code = model, request.code_version[:200]

    def _check_run(self, run: str) -> None:
        if run != self.run:
            raise FailedPrecondition(f"this is the control node of the run '{self.run}', not of '{run[:100]}'")


def _same(held: pb.Share, reported: pb.Share) -> bool:
    return all(getattr(held, field) == getattr(reported, field) for field in KEPT)


def _absurd(report: pb.ReportRequest) -> str:
    samples = report.share.stop - report.share.start
    if report.share.kind != pb.Share.KIND_INITIALISE and report.samples != samples:
        return f"it reports {report.samples} samples of a share of {samples}"
    if report.compute_seconds < 0 or report.seconds < 0 or len(report.correct) > 1000:
        return "its report has times below zero or more than 1000 outputs"
    if any(correct > samples for correct in report.correct.values()):
        return f"it reports more right answers than the {samples} samples of its share"
    return ""


def _count(worker: Worker, report: pb.ReportRequest) -> None:
    worker.sent_bytes += report.sent_bytes
    worker.received_bytes += report.received_bytes
    if report.share.kind == pb.Share.KIND_TRAIN:
        worker.samples += report.samples
        worker.share = report.samples
        worker.compute_seconds = report.compute_seconds
