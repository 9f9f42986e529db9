"""Leads a run from its beginning, or from where it was, to its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Final, TypeVar

import structlog

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as ps
from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.core.errors import EncephalonError, FailedPrecondition, NotFound, Retryable
from encephalon.core.tasks import Ended, background, end_process
from encephalon.learning.layout import planned
from encephalon.learning.optimizers import whole
from encephalon.state import Objects, read
from encephalon.training.controller.changes import Changes
from encephalon.training.controller.checkpoints import Checkpoints
from encephalon.training.controller.deciding import Verdict, decision, metrics_of, verdict_of
from encephalon.training.controller.desk import Desk
from encephalon.training.controller.epoch import Range
from encephalon.training.controller.evaluation import parts_of, summed
from encephalon.training.controller.failures import RunFailed, ShardLost, Stalled, Stopped, Superseded
from encephalon.training.controller.group import Group
from encephalon.training.controller.lineage import Lineage, Snapshot
from encephalon.training.controller.phase import Phase
from encephalon.training.controller.plans import parts_of_update, sizes_of_round
from encephalon.training.controller.record import Record
from encephalon.training.controller.resuming import behind, last_decision, notes_since
from encephalon.training.controller.rounds import Part, Round
from encephalon.training.controller.stopping import best_of, exhausted
from encephalon.training.controller.streams import Stream
from encephalon.training.planning import Planner
from encephalon.training.runs import RunSettings

__all__ = ["Engine", "Finish"]

_log = structlog.get_logger(__name__)
T = TypeVar("T")

TICK_S: Final = 0.25
MOST_RELOADS: Final = 20
"""In a row, without one update between them."""
AGAIN_S: Final = 1.0
"""Before a store that was away is asked again."""
LAST_S: Final = 20.0
"""For the checkpoint of a run that was stopped or has failed: less than what is waited for a process to end."""

Finish = Callable[[pb.RunState, bytes], Awaitable[Mapping[str, str]]]
"""Keeps what the run has learned: state and history to what was made, as references into the library."""


class Engine:
    """One run. Workers come to `desk`; the shards are asked through `group`; `record` is what would survive."""

    def __init__(
        self,
        settings: RunSettings,
        *,
        desk: Desk,
        group: Group,
        record: Record,
        checkpoints: Checkpoints,
        objects: Objects,
        changes: Changes,
        finish: Finish,
        workers: int | None = None,
        ended: Ended = end_process,
    ) -> None:
        """ended: what happens when one of its eternal tasks ends."""
        self.settings = settings
        self.desk, self.group, self.record, self.checkpoints = desk, group, record, checkpoints
        self.changes = changes
        self.planner = Planner(settings)
        self.lineage: Lineage | None = None
        self.sentence = "begins"
        self.recoveries = 0
        self.rate = 0.0
        """Learning rate after the last decision."""
        self.stop = False
        self._objects = objects
        self._finish = finish
        self._workers = workers or settings.workers
        self._ended = ended
        self._clock = asyncio.get_running_loop().time
        self._began = self._clock()
        self._before_s = 0.0
        self._decided_at = self._clock()
        self._consistent = False
        """All shards are at the version of the lineage, so that a checkpoint can be taken."""
        self._idle_s = 0.0
        self._reloads = 0
        self._next_update = 1
        self._optimizer = _optimizer(settings)

    # What others ask.

    @property
    def seconds(self) -> float:
        """That the run has been learning for, in this life and those before."""
        return self._before_s + self._clock() - self._began

    @property
    def behind(self) -> int:
        """Updates that would be lost with a shard."""
        return 0 if self.lineage is None else max(0, self.lineage.version - self.checkpoints.snapshot.version)

    @property
    def over(self) -> bool:
        return bool(self.desk.finished)

    def request_stop(self) -> None:
        self.stop = True
        self.changes.told()

    def model(self) -> pb.JoinResponse:
        """What a worker that has joined needs to know."""
        self._plan_layout()
        return pb.JoinResponse(layout=self.record.state.layout, shards=self.group.message())

    # The way of a run.

    async def run(self) -> pb.RunState.State.ValueType:
        """To its end. Superseded when another control node has taken over; everything else ends in a state."""
        async with AsyncExitStack() as stack:
            for name, work in (
                ("time of members", self._tick()),
                ("watch over shards", self.group.watch()),
                ("state of the run", self.record.keep()),
            ):
                await stack.enter_async_context(background(name, work, ended=self._ended))
            try:
                await self._lead()
            except Stopped:
                await self._end(pb.RunState.STATE_STOPPED, "stopped; it can be resumed")
            except Superseded:
                raise
            except EncephalonError as error:
                _log.error("the run has failed", cause=error.message)
                await self._end(pb.RunState.STATE_FAILED, error.message)
            else:
                await self._end(pb.RunState.STATE_SUCCEEDED, "has learned")
            finally:
                await self.checkpoints.abandon()
        return self.record.state.state

    async def _lead(self) -> None:
        await self._begin()
        resuming = self.record.state.generation > 0
        while True:
            try:
                await self._ready(resuming)
                await self._learn()
                await self._judge()
                return await self._keep()
            except ShardLost as lost:
                await self._fall_back(lost)
            resuming = False

    async def _begin(self) -> None:
        """Until there is a model, and a checkpoint to begin with."""
        state = self.record.state
        if state.state in (pb.RunState.STATE_RUNNING, pb.RunState.STATE_STARTING):
            self.recoveries += 1
        if not state.started_time.seconds:
            state.started_time.FromNanoseconds(time.time_ns())
        self._before_s = state.seconds
        self.planner.restore(state.speeds)
        self.desk.expect(state.model_digest)
        state.state, state.sentence = pb.RunState.STATE_STARTING, ""
        self.record.touch()
        history = await self._history()
        await self._until(lambda: self.desk.model is not None, lambda: "waits for a worker to join")
        self._plan_layout()
        state.model_digest = self.desk.agreed.digest
        if not state.HasField("checkpoint"):
            state.checkpoint.CopyFrom(await self._initial())
        self.checkpoints.snapshot = Snapshot.of(state, history)
        state.state = pb.RunState.STATE_RUNNING
        self.record.touch()

    async def _history(self) -> bytes:
        key = self.record.state.history_key
        if not key:
            return b""
        try:
            return await self._patiently(lambda: read(self._objects, key))
        except NotFound:
            _log.warning("the history of the run is gone and begins anew", key=key)
            return b""

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """Tries again while a store is away, for as long as a run may be without workers."""
        end = self._clock() + self.settings.workers_timeout_s
        while True:
            try:
                return await work()
            except Retryable as error:
                if self._clock() > end:
                    raise
                self._say(f"waits for a store: {error.message}")
            self._check()
            await self.changes.wait(AGAIN_S)

    def _plan_layout(self) -> None:
        """Of the shards that there are now, which may be others than when the run began."""
        state, model = self.record.state, self.desk.model
        if model is not None and (not state.layout.tensors or state.layout.shards != len(self.group.seats)):
            layout = planned(model.tensors, len(self.group.seats), whole=whole(self._optimizer))
            state.layout.CopyFrom(layout)

    async def _initial(self) -> ps.Checkpoint:
        template = pb.Share(kind=pb.Share.KIND_INITIALISE, key=self.checkpoints.initial_key())
        round = Round(template, [Part(0, 0, 0)], seed=self.settings.seed)
        await self._work(round, lambda: round.whole)
        (report,) = round.reports
        if not report.initial.pieces or report.initial.version:
            raise RunFailed("the first checkpoint that a worker has written has no pieces or is not of version 0")
        return report.initial

    async def _ready(self, resuming: bool) -> None:
        """All shards are there and at one version, that of the lineage."""
        self._consistent = False
        await self.group.gather(self._say, self._check)
        if resuming and await self._continue():
            _log.info("goes on with what the shards hold", version=self._line.version)
        else:
            await self._load(self.record.state.checkpoint)
            self.lineage = Lineage(self.desk.agreed.samples, self.checkpoints.snapshot)
        # A shard refuses an update whose number was decided or dropped before, also under an earlier generation.
        in_step = self.settings.mode == "sync"
        self._next_update = self._line.version + 1 if in_step else (self.group.generation << 32) + 1
        self._decided_at = self._clock()
        self._consistent = True
        self.changes.told()

    async def _load(self, checkpoint: ps.Checkpoint | None) -> None:
        """Under a new generation; without a checkpoint the shards keep what they hold, and only drop what waits."""
        state = self.record.state
        seen = [seat.seen.generation for seat in self.group.seats if seat.seen.run == self.settings.run]
        state.generation = max([state.generation, *seen]) + 1
        self.record.touch()
        version = self._line.version if checkpoint is None else checkpoint.version
        self._say(f"loads version {version} into {len(self.group.seats)} shards")
        await self.group.load(
            ps.LoadRequest(
                run=self.settings.run,
                generation=state.generation,
                layout=state.layout,
                optimizer=self._optimizer,
                checkpoint=checkpoint,
                buffers=max(64, 4 * self._workers),
            )
        )

    async def _continue(self) -> bool:
        seats = self.group.seats
        late = behind(seats, self.settings.run)
        notes = notes_since(seats, self.checkpoints.snapshot.version)
        if late is None or notes is None:
            return False
        line = Lineage(self.desk.agreed.samples, self.checkpoints.snapshot)
        try:
            for note in notes:
                line.replay(note)
            if late and (last := last_decision(seats)) is not None:
                await self.group.decide(self._repeated(last), late)
            self.lineage = line
            await self._load(None)
        except EncephalonError as error:
            _log.warning("what the shards hold cannot be gone on with", cause=error.message)
            await self.group.gather(self._say, self._check)
            return False
        return True

    def _repeated(self, last: ps.Decided) -> ps.DecideRequest:
        return ps.DecideRequest(
            run=self.settings.run,
            generation=self.group.seats[0].seen.generation,
            update=last.update,
            decision=last.decision,
            version=last.version,
            scale=last.scale,
            note=last.note,
        )

    async def _fall_back(self, lost: ShardLost) -> None:
        self._check_owner()
        if self.stop:
            raise Stopped("asked to stop")
        self._consistent = False
        self.recoveries += 1
        self._reloads += 1
        if self._reloads > MOST_RELOADS:
            raise RunFailed(f"{lost.message}; everything was loaded {MOST_RELOADS} times in vain")
        self.desk.begin(None)
        await self.checkpoints.abandon()
        _log.warning(
            "a shard is lost; the run goes back to its checkpoint",
            cause=lost.message,
            version=self.checkpoints.snapshot.version,
        )
        if self._reloads > 1:
            await asyncio.sleep(min(2.0, 0.1 * 2.0**self._reloads))

    # Learning.

    async def _learn(self) -> None:
        while not self._done():
            if self.settings.mode == "sync":
                await self._epoch_in_step()
            else:
                await self._epoch_of_streams()
            await self._close_epoch()
        await self._last_checkpoint()

    def _done(self) -> bool:
        line = self._line
        return (
            line.epoch.number >= self.settings.epochs
            or self._enough()
            or exhausted(line.evaluations, self.settings.patience)
        )

    def _enough(self) -> bool:
        return self.settings.most_steps is not None and self._line.version >= self.settings.most_steps

    async def _epoch_in_step(self) -> None:
        while not self._line.epoch.whole and not self._enough():
            if (samples := self._line.epoch.give(self.settings.batch_size)) is not None:
                await self._update(samples)
            await self._checkpoint_when_due()

    async def _update(self, samples: Range) -> None:
        round = await self._round(samples)
        update = self._next_update
        self.desk.begin(round)
        while True:
            await self._until(lambda: round.whole, round.waiting, round)
            try:
                prepared = await self.group.prepare(update, round.contributions)
                break
            except Stalled as stalled:
                _log.warning("an update is computed once more", cause=stalled.message)
                round.retake()
        self._next_update += 1
        reports = [(report.member.worker, report) for report in round.reports]
        workers = {report.share.rank: worker for worker, report in reports}
        self._observe(reports)
        await self._decide(update, verdict_of(self.settings, prepared, workers), reports, [samples])

    async def _round(self, samples: Range) -> Round:
        await self._until(lambda: bool(self.desk.members.present), lambda: "waits for a worker to join")
        line = self._line
        self.planner.due(line.version + 1, samples[0] == 0)
        parts = parts_of_update(self.settings, self.planner, self.desk.members.present, samples, self._workers)
        template = pb.Share(
            kind=pb.Share.KIND_TRAIN,
            generation=self.group.generation,
            update=self._next_update,
            version=line.version,
            epoch=line.epoch.number,
            divisor=samples[1] - samples[0],
        )
        return Round(
            template,
            parts,
            seed=self.settings.seed,
            divisible=self.settings.plan != "fixed",
            excused=lambda: bool(self.group.away),
        )

    async def _epoch_of_streams(self) -> None:
        line = self._line
        sizes: dict[str, int] = {}

        def size(worker: str) -> int:
            present = self.desk.members.present
            due = self.planner.due(line.version + 1, line.epoch.left == line.epoch.samples)
            if due or set(sizes) != {each.name for each in present}:
                sizes.clear()
                sizes.update(sizes_of_round(self.settings, self.planner, present, self._workers))
            return sizes.get(worker, 1)

        stream = Stream(
            line.epoch,
            self.group.generation,
            first_update=self._next_update,
            version=lambda: line.version,
            size=size,
            staleness=self.settings.staleness if self.settings.mode == "ssp" else None,
            seed=self.settings.seed,
            excused=lambda: bool(self.group.away),
        )
        self.desk.begin(stream)
        while not line.epoch.whole and not self._enough():
            await self._until(lambda: bool(stream.pushed or stream.dropped), stream.waiting, stream)
            await self._take(stream)
            await self._checkpoint_when_due()
        self.desk.begin(None)
        self._next_update = stream.update
        # What is still on its way when there are enough steps is of no use.
        line.epoch = Lineage(line.epoch.samples, line.snapshot()).epoch

    async def _take(self, stream: Stream) -> None:
        while stream.dropped:
            await self.group.decide(self._drop(stream.dropped.popleft()))
        if not stream.pushed:
            return
        pushed = stream.pushed.popleft()
        try:
            prepared = await self.group.prepare(pushed.update, pushed.contributions)
        except Stalled as stalled:
            _log.warning("an update is dropped, its samples are given again", cause=stalled.message)
            stream.failed(pushed)
            return
        reports = [(pushed.worker, pushed.report)]
        self._observe(reports)
        verdict = verdict_of(self.settings, prepared, {0: pushed.worker})
        await self._decide(pushed.update, verdict, reports, [pushed.range], lambda: stream.decided(pushed))

    def _drop(self, update: int) -> ps.DecideRequest:
        return ps.DecideRequest(
            run=self.settings.run,
            generation=self.group.generation,
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
        line, now = self._line, self._clock()
        metrics = metrics_of(reports, verdict, version=line.version + 1, epoch=line.epoch.number)
        metrics.at_seconds, metrics.seconds = self.seconds, now - self._decided_at
        metrics.learning_rate = self.rate
        request = decision(self.settings.run, self.group.generation, update, verdict, metrics, ranges)
        self._consistent = False
        self.rate = metrics.learning_rate = await self.group.decide(request)
        if commit is None:
            line.commit(metrics, ranges)
        else:
            commit()
            line.decided(metrics)
        self._consistent = True
        self._decided_at, self._reloads = now, 0
        if not verdict.apply:
            _log.warning("an update was skipped, for its gradient was not finite", update=update)
        self.changes.told()

    def _observe(self, reports: list[tuple[str, pb.ReportRequest]]) -> None:
        for worker, report in reports:
            if report.compute_seconds > 0:
                self.planner.observe(worker, report.samples, report.compute_seconds)

    # Judging.

    async def _close_epoch(self) -> None:
        line = self._line
        judged = any(each.version == line.version and each.purpose == "validation" for each in line.evaluations)
        best = None
        if self._counts("validation") and not judged:
            evaluation = await self._evaluate("validation")
            line.judged(evaluation)
            if best_of(line.evaluations) is evaluation:
                best = evaluation
        if line.epoch.whole:
            line.next_epoch()
        if best is not None or self._done():
            await self._checkpoint(best)
            await self._secure(best)

    async def _secure(self, best: pb.Evaluation | None) -> None:
        """What early stopping would come back to has to be kept; learning waits for it, but not for ever."""
        if best is None or self.settings.patience is None:
            return
        for _ in range(3):
            if await self.checkpoints.settled():
                return
            await asyncio.sleep(1.0)
            await self._checkpoint(best)

    def _counts(self, purpose: str) -> int:
        return self.desk.model.evaluation.get(purpose, 0) if self.desk.model is not None else 0

    async def _evaluate(self, purpose: str, version: int | None = None) -> pb.Evaluation:
        line = self._line
        at = line.version if version is None else version
        template = pb.Share(
            kind=pb.Share.KIND_EVALUATE,
            generation=self.group.generation,
            update=at,
            version=at,
            epoch=line.epoch.number,
            purpose=purpose,
        )
        round = Round(
            template,
            parts_of(self._counts(purpose), self._workers),
            seed=self.settings.seed,
            divisible=True,
            excused=lambda: bool(self.group.away),
        )
        await self._work(round, lambda: round.whole)
        evaluation = summed(round.reports, at, line.epoch.number, purpose)
        evaluation.at_seconds = self.seconds
        self._decided_at = self._clock()
        return evaluation

    async def _judge(self) -> None:
        """On the test split, with what the run will leave behind."""
        state = self.record.state
        best = state.best if self.settings.patience is not None and state.HasField("best") else None
        version = self._line.version
        if not self._counts("test") or state.HasField("test"):
            return
        if best is not None and best.version != version:
            self._consistent = False
            await self._load(best)
            version = best.version
        state.test.CopyFrom(await self._evaluate("test", version))
        self.record.touch()

    async def _keep(self) -> None:
        state = self.record.state
        await self.checkpoints.settled()
        self.desk.begin(None)
        while not await self.record.settled(1.0):
            self._check()
            self._say(f"waits for the store of its state: {self.record.problem}")
        self._say("keeps what it has learned")
        made = await self._patiently(lambda: self._finish(state, self._line.history.dump()))
        state.made.clear()
        state.made.update(made)

    # Checkpoints.

    async def _checkpoint_when_due(self) -> None:
        if self.checkpoints.due(self._line.version):
            await self._checkpoint()

    async def _checkpoint(self, best: pb.Evaluation | None = None) -> None:
        await self.checkpoints.begin(self.group, self._line.snapshot(), self._fill, best)
        self._check()

    async def _last_checkpoint(self) -> None:
        """A run has not ended before it is kept."""
        waited = 0.0
        while not await self.checkpoints.settled() or self.checkpoints.snapshot.progress != self._line.epoch.progress():
            if waited:
                self._say(f"waits until its checkpoint can be written: {self.checkpoints.problem}")
                await self.changes.wait(1.0)
            waited += 1.0
            if waited > self.settings.workers_timeout_s:
                raise RunFailed(f"the last checkpoint could not be written: {self.checkpoints.problem}")
            await self._checkpoint()

    def _fill(self, state: pb.RunState) -> None:
        state.seconds = self.seconds
        state.speeds.clear()
        state.speeds.update(self.planner.speeds())

    async def _end(self, outcome: pb.RunState.State.ValueType, sentence: str) -> None:
        self.desk.begin(None)
        if outcome != pb.RunState.STATE_SUCCEEDED and self._consistent and self.group.whole:
            with contextlib.suppress(TimeoutError, EncephalonError):
                async with asyncio.timeout(LAST_S):
                    await self.checkpoints.begin(self.group, self._line.snapshot(), self._fill)
                    await self.checkpoints.settled()
        state = self.record.state
        state.state, state.sentence = outcome, sentence
        state.seconds = self.seconds
        self.sentence = sentence
        self.record.touch()
        await self.record.settled(self.settings.workers_timeout_s if not self.stop else LAST_S)
        self.desk.finished = f"the run '{self.settings.run}' {_told(outcome)}: {sentence}"
        self.changes.told()

    # Waiting.

    @property
    def _line(self) -> Lineage:
        if self.lineage is None:
            raise FailedPrecondition("the run has not begun yet")
        return self.lineage

    async def _work(self, phase: Round, met: Callable[[], bool]) -> None:
        self.desk.begin(phase)
        await self._until(met, phase.waiting, phase)
        self.desk.begin(None)

    async def _until(self, met: Callable[[], bool], waiting: Callable[[], str], phase: Phase | None = None) -> None:
        """Stopped, ShardLost, Superseded when that happens meanwhile; RunFailed when nobody works for too long."""
        self._idle_s = 0.0
        while not met():
            self._check()
            if phase is not None and phase.doomed:
                raise RunFailed(phase.doomed)
            self._say(waiting())
            before = self._clock()
            await self.changes.wait(TICK_S)
            # Not more than a second at a time: when this process itself has slept, nobody else was idle.
            self._idle_s += min(1.0, self._clock() - before)
            if any(worker.held is not None for worker in self.desk.members.present):
                self._idle_s = 0.0
            if self._idle_s > self.settings.workers_timeout_s:
                raise RunFailed(f"nobody worked for {self.settings.workers_timeout_s:g} s: the run {waiting()}")

    def _check(self) -> None:
        self._check_owner()
        if self.group.lost is not None:
            raise self.group.lost
        if self.stop:
            raise Stopped("asked to stop")

    def _check_owner(self) -> None:
        if self.record.superseded is not None:
            raise self.record.superseded

    def _say(self, sentence: str) -> None:
        self.sentence = sentence

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            for worker in self.desk.tick(self._clock()):
                _log.warning("a worker is lost", worker=worker.name)
                self.changes.told()


def _optimizer(settings: RunSettings) -> ps.Optimizer:
    return ps.Optimizer(
        name=settings.optimizer,
        arguments=json.dumps(settings.optimizer_arguments),
        schedule=settings.schedule,
        schedule_arguments=json.dumps(settings.schedule_arguments) if settings.schedule else "",
    )


def _told(outcome: pb.RunState.State.ValueType) -> str:
    return {pb.RunState.STATE_SUCCEEDED: "succeeded", pb.RunState.STATE_STOPPED: "was stopped"}.get(outcome, "failed")
