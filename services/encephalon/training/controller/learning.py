"""The updates of an epoch, in step or in streams: shares are given, contributions prepared, and decided."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as ps
from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.training.controller.course import Course
from encephalon.training.controller.deciding import Verdict, decision, metrics_of, verdict_of
from encephalon.training.controller.epoch import Epoch, Range
from encephalon.training.controller.failures import RunFailed, Stalled
from encephalon.training.controller.plans import buffers_of, parts_of_update, sizes_of_round
from encephalon.training.controller.rounds import Part, Round
from encephalon.training.controller.streams import Stream

__all__ = ["Learning"]

_log = structlog.get_logger(__name__)


class Learning:
    def __init__(self, course: Course) -> None:
        self._course = course

    async def epoch_in_step(self) -> None:
        course = self._course
        while not course.line.epoch.whole and not course.enough():
            if (samples := course.line.epoch.give(course.settings.batch_size)) is not None:
                await self._update(samples)
            await course.checkpoint_when_due()

    async def _update(self, samples: Range) -> None:
        course = self._course
        round = await self._round(samples)
        update = course.next_update
        course.begin(round)
        while True:
            await course.until(lambda: round.whole, round.waiting, round)
            try:
                prepared = await course.group.prepare(update, round.contributions)
                break
            except Stalled as stalled:
                _log.warning("an update is computed once more", cause=stalled.message)
                round.retake()
        course.next_update += 1
        reports = [(report.member.worker, report) for report in round.reports]
        workers = {report.share.rank: worker for worker, report in reports}
        self._observe(reports)
        await self._decide(update, verdict_of(course.settings, prepared, workers), reports, [samples])

    async def _round(self, samples: Range) -> Round:
        course = self._course
        await course.until(lambda: bool(course.desk.members.present), lambda: "waits for a worker to join")
        line = course.line
        course.planner.due(line.version + 1, samples[0] == 0)
        parts = self._parts(samples)
        template = pb.Share(
            kind=pb.Share.KIND_TRAIN,
            generation=course.group.generation,
            update=course.next_update,
            version=line.version,
            epoch=line.epoch.number,
            divisor=samples[1] - samples[0],
        )
        return Round(
            template,
            parts,
            seed=course.settings.seed,
            divisible=course.settings.plan != "fixed",
            excused=lambda: bool(course.group.away),
        )

    def _parts(self, samples: Range) -> list[Part]:
        """RunFailed for more than a shard takes, which nobody could ever push."""
        course = self._course
        parts = parts_of_update(course.settings, course.planner, course.desk.members.present, samples, course.workers)
        if len(parts) > (most := buffers_of(course.workers)):
            raise RunFailed(
                f"an update of {samples[1] - samples[0]} samples would come in {len(parts)} parts, for no more fit "
                f"into a worker, but a shard holds {most} at a time; use smaller batches, or let workers take more"
            )
        return parts

    async def epoch_of_streams(self) -> None:
        course = self._course
        line = course.line
        sizes: dict[str, int] = {}

        def size(worker: str) -> int:
            present = course.desk.members.present
            due = course.planner.due(line.version + 1, line.epoch.left == line.epoch.samples)
            if due or set(sizes) != {each.name for each in present}:
                sizes.clear()
                sizes.update(sizes_of_round(course.settings, course.planner, present, course.workers))
            return sizes.get(worker, 1)

        stream = Stream(
            line.epoch,
            course.group.generation,
            first_update=course.next_update,
            version=lambda: line.version,
            size=size,
            staleness=course.settings.staleness if course.settings.mode == "ssp" else None,
            seed=course.settings.seed,
            excused=lambda: bool(course.group.away),
        )
        course.begin(stream)
        while not line.epoch.whole and not course.enough():
            await course.until(lambda: bool(stream.pushed or stream.dropped), stream.waiting, stream)
            await self._take(stream)
            await course.checkpoint_when_due()
        course.desk.begin(None)
        course.next_update = stream.update
        # What is still on its way when there are enough steps is of no use.
        line.epoch = Epoch(line.epoch.number, line.epoch.samples, line.epoch.progress())

    async def _take(self, stream: Stream) -> None:
        course = self._course
        while stream.dropped:
            await course.group.decide(self._drop(stream.dropped.popleft()))
        if not stream.pushed:
            return
        pushed = stream.pushed.popleft()
        try:
            prepared = await course.group.prepare(pushed.update, pushed.contributions)
        except Stalled as stalled:
            _log.warning("an update is dropped, its samples are given again", cause=stalled.message)
            stream.failed(pushed)
            return
        reports = [(pushed.worker, pushed.report)]
        self._observe(reports)
        verdict = verdict_of(course.settings, prepared, {0: pushed.worker})
        await self._decide(pushed.update, verdict, reports, [pushed.range], lambda: stream.decided(pushed))

    def _drop(self, update: int) -> ps.DecideRequest:
        return ps.DecideRequest(
            run=self._course.settings.run,
            generation=self._course.group.generation,
            update=update,
            decision=ps.DecideRequest.DECISION_DROP,
        )

    async def _decide(
        self,
        update: int,
        verdict: Verdict,
        reports: list[tuple[str, pb.ReportRequest]],
        ranges: list[Range],
        commit: Callable[[], None] | None = None,
    ) -> None:
        """All shards take the decision; then, and only then, its samples are used up."""
        course = self._course
        line, now = course.line, course.clock()
        metrics = metrics_of(reports, verdict, version=line.version + 1, epoch=line.epoch.number)
        metrics.at_seconds, metrics.seconds = course.seconds, now - max(course.decided_at, course.desk.began or 0.0)
        metrics.learning_rate = course.rate
        note = pb.Consumed(
            epoch=metrics.epoch,
            ranges=[pb.Range(start=start, stop=stop) for start, stop in ranges],
            metrics=metrics,
            evaluations=line.untold,
        )
        request = decision(course.settings.run, course.group.generation, update, verdict, note)
        course.consistent = False
        course.rate = metrics.learning_rate = await course.group.decide(request)
        if commit is None:
            line.commit(metrics, ranges)
        else:
            commit()
            line.decided(metrics)
        course.consistent = True
        course.decided_at, course.reloads = now, 0
        if not verdict.apply:
            _log.warning("an update was skipped, for its gradient was not finite", update=update)
        course.changes.told()

    def _observe(self, reports: list[tuple[str, pb.ReportRequest]]) -> None:
        for worker, report in reports:
            if report.compute_seconds > 0:
                self._course.planner.observe(worker, report.samples, report.compute_seconds)
