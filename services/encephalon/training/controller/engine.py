"""Leads a run from its beginning, or from where it was, to its end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Final

import structlog

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as ps
from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.core.errors import EncephalonError, NotFound
from encephalon.core.tasks import Ended, background, end_process
from encephalon.state import Objects, read
from encephalon.training.controller.changes import Changes
from encephalon.training.controller.checkpoints import Checkpoints
from encephalon.training.controller.course import Course
from encephalon.training.controller.desk import Desk
from encephalon.training.controller.failures import RunFailed, ShardLost, Stopped, Superseded
from encephalon.training.controller.group import Group
from encephalon.training.controller.judging import Judging
from encephalon.training.controller.learning import Learning
from encephalon.training.controller.lineage import Snapshot
from encephalon.training.controller.loading import Loading
from encephalon.training.controller.record import Record
from encephalon.training.controller.rounds import Part, Round
from encephalon.training.runs import RunSettings

__all__ = ["Engine", "Finish"]

_log = structlog.get_logger(__name__)

TICK_S: Final = 0.25
"""Between two looks at who was not heard of."""

LAST_S: Final = 20.0
"""For the checkpoint of a run that was stopped or has failed: less than what is waited for a process to end."""

Finish = Callable[[pb.RunState, bytes], Awaitable[Mapping[str, str]]]
"""Keeps what the run has learned: state and history to what was made, as references into the library."""


class Engine(Course):
    """Leads the run; `run` is called once."""

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
        super().__init__(
            settings,
            desk=desk,
            group=group,
            record=record,
            checkpoints=checkpoints,
            changes=changes,
            workers=workers,
        )
        self._objects = objects
        self._finish = finish
        self._ended = ended
        self._loading = Loading(self)
        self._learning = Learning(self)
        self._judging = Judging(self, self._loading)

    @property
    def over(self) -> bool:
        return bool(self.desk.finished)

    def model(self) -> pb.JoinResponse:
        """What a worker that has joined needs to know."""
        self.plan_layout()
        return pb.JoinResponse(layout=self.record.state.layout, shards=self.group.message())

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
                await self._end(pb.RunState.STATE_STOPPED, "it can be resumed")
            except Superseded:
                raise
            except EncephalonError as error:
                _log.error("the run has failed", cause=error.message)
                await self._end(pb.RunState.STATE_FAILED, error.message)
            else:
                await self._end(pb.RunState.STATE_SUCCEEDED, self._learned())
            finally:
                await self.checkpoints.abandon()
        return self.record.state.state

    async def _lead(self) -> None:
        await self._begin()
        resuming = self.record.state.generation > 0
        while True:
            try:
                await self._loading.ready(resuming)
                await self._learn()
                self.learned_at = self.clock()
                self._learned()
                await self._judging.judge()
                return await self._keep()
            except ShardLost as lost:
                await self._loading.fall_back(lost)
            resuming = False

    async def _begin(self) -> None:
        """Until there is a model, and a checkpoint to begin with."""
        state = self.record.state
        if state.state in (pb.RunState.STATE_RUNNING, pb.RunState.STATE_STARTING):
            self.recoveries += 1
        if not state.started_time.seconds:
            state.started_time.FromNanoseconds(time.time_ns())
        self.before_s = state.seconds
        self.planner.restore(state.speeds)
        self.desk.expect(state.model_digest)
        state.state, state.sentence = pb.RunState.STATE_STARTING, ""
        self.record.touch()
        history = await self._history()
        await self.until(lambda: self.desk.model is not None, lambda: "waits for a worker to join")
        self.plan_layout()
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
            return await self.patiently(lambda: read(self._objects, key))
        except NotFound:
            _log.warning("the history of the run is gone and begins anew", key=key)
            return b""

    async def _initial(self) -> ps.Checkpoint:
        template = pb.Share(kind=pb.Share.KIND_INITIALISE, key=self.checkpoints.initial_key())
        round = Round(template, [Part(0, 0, 0)], seed=self.settings.seed)
        await self.work(round, lambda: round.whole)
        (report,) = round.reports
        if not report.initial.pieces or report.initial.version:
            raise RunFailed("the first checkpoint that a worker has written has no pieces or is not of version 0")
        return report.initial

    async def _learn(self) -> None:
        while not self.done():
            if self.settings.mode == "sync":
                await self._learning.epoch_in_step()
            else:
                await self._learning.epoch_of_streams()
            await self._judging.close_epoch()
        await self._last_checkpoint()

    def _learned(self) -> str:
        """What there is to say of a run that has come to its end. RunFailed when not one update was applied."""
        steps = self.line.history.steps
        skipped = sum(step.skipped for step in steps)
        if steps and skipped == len(steps):
            raise RunFailed(
                f"all {skipped} updates were skipped, for their gradients were not finite, so nothing was learned; "
                "look at the data, or begin a run with a lower learning rate"
            )
        return f"{skipped} of {len(steps)} updates were skipped, for their gradients were not finite" if skipped else ""

    async def _last_checkpoint(self) -> None:
        """A run has not ended before it is kept."""
        waited = 0.0
        while not await self.checkpoints.settled() or self.checkpoints.snapshot.progress != self.line.epoch.progress():
            if waited:
                self.say(f"waits until its checkpoint can be written: {self.checkpoints.problem}")
                await self.changes.wait(1.0)
            waited += 1.0
            if waited > self.settings.workers_timeout_s:
                raise RunFailed(f"the last checkpoint could not be written: {self.checkpoints.problem}")
            await self.checkpoint()

    async def _keep(self) -> None:
        state = self.record.state
        await self.checkpoints.settled()
        self.desk.begin(None)
        while not await self.record.settled(1.0):
            self.check()
            self.say(f"waits for the store of its state: {self.record.problem}")
        self.say("keeps what it has learned")
        made = await self.patiently(lambda: self._finish(state, self.line.history.dump()))
        state.made.clear()
        state.made.update(made)

    async def _end(self, outcome: pb.RunState.State.ValueType, sentence: str) -> None:
        self.desk.begin(None)
        if outcome != pb.RunState.STATE_SUCCEEDED and self.consistent and self.group.whole:
            with contextlib.suppress(TimeoutError, EncephalonError):
                async with asyncio.timeout(LAST_S):
                    await self.checkpoints.begin(self.group, self.line.snapshot(), self.fill)
                    await self.checkpoints.settled()
        state = self.record.state
        state.state, state.sentence = outcome, sentence
        state.seconds = self.seconds
        self.sentence = sentence
        self.record.touch()
        await self.record.settled(self.settings.workers_timeout_s if not self.stop else LAST_S)
        self.desk.finished = f"the run '{self.settings.run}' {_told(outcome)}" + (f": {sentence}" if sentence else "")
        self.changes.told()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            for worker in self.desk.tick(self.clock()):
                _log.warning("a worker is lost", worker=worker.name)
                self.changes.told()


def _told(outcome: pb.RunState.State.ValueType) -> str:
    return {pb.RunState.STATE_SUCCEEDED: "succeeded", pb.RunState.STATE_STOPPED: "was stopped"}.get(outcome, "failed")
