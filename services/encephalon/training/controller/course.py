"""Where a run is, and how everything that leads it waits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as ps
from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.core.errors import FailedPrecondition, Retryable
from encephalon.learning.layout import planned
from encephalon.learning.optimizers import whole
from encephalon.training.controller.changes import Changes
from encephalon.training.controller.checkpoints import Checkpoints
from encephalon.training.controller.desk import Desk
from encephalon.training.controller.failures import RunFailed, Stopped
from encephalon.training.controller.group import Group
from encephalon.training.controller.lineage import Lineage
from encephalon.training.controller.phase import Phase
from encephalon.training.controller.record import Record
from encephalon.training.controller.rounds import Round
from encephalon.training.controller.stopping import exhausted
from encephalon.training.planning import Planner
from encephalon.training.runs import RunSettings

__all__ = ["Course"]

T = TypeVar("T")
TICK_S: Final = 0.25
"""A look around, though nobody has told anything."""
AGAIN_S: Final = 1.0
"""Before a store that was away is asked again."""


class Course:
    """One run as it is led. Workers come to `desk`; the shards are asked through `group`; `record` is what would
    survive. Whoever waits here hears of it when the run shall stop or a shard is lost."""

    def __init__(
        self,
        settings: RunSettings,
        *,
        desk: Desk,
        group: Group,
        record: Record,
        checkpoints: Checkpoints,
        changes: Changes,
        workers: int | None = None,
    ) -> None:
        self.settings = settings
        self.desk, self.group, self.record, self.checkpoints = desk, group, record, checkpoints
        self.changes = changes
        self.workers = workers or settings.workers
        """That are expected; a plan that is fixed has as many ranks."""
        self.optimizer = _optimizer(settings)
        self.planner = Planner(settings)
        self.clock = asyncio.get_running_loop().time
        self.lineage: Lineage | None = None
        self.sentence = "begins"
        """What it does, or waits for."""
        self.recoveries = 0
        self.reloads = 0
        """In a row, without one update between them."""
        self.rate = 0.0
        """Learning rate after the last decision."""
        self.stop = False
        self.next_update = 1
        self.decided_at = self.clock()
        self.before_s = 0.0
        """That the run had been learning for before this life."""
        self.learned_at: float | None = None
        """When the last update was kept."""
        self.consistent = False
        """All shards are at the version of the lineage, so that a checkpoint can be taken."""
        self._began = self.clock()
        """This life; learning begins with the first share."""
        self._idle_s = 0.0

    @property
    def seconds(self) -> float:
        """That the run has been learning for, in this life and those before: from the first share to the last update,
        without what it waited for at the beginning."""
        began, end = self.desk.began, self.learned_at
        return self.before_s + (0.0 if began is None else (self.clock() if end is None else end) - began)

    @property
    def elapsed(self) -> float:
        """Seconds that it has been led for, whatever it did."""
        return self.before_s + self.clock() - self._began

    @property
    def behind(self) -> int:
        """Updates that would be lost with a shard."""
        return 0 if self.lineage is None else max(0, self.lineage.version - self.checkpoints.snapshot.version)

    def request_stop(self) -> None:
        self.stop = True
        self.changes.told()

    @property
    def line(self) -> Lineage:
        if self.lineage is None:
            raise FailedPrecondition("the run has not begun yet")
        return self.lineage

    def done(self) -> bool:
        line = self.line
        return (
            line.epoch.number >= self.settings.epochs
            or self.enough()
            or exhausted(line.evaluations, self.settings.patience)
        )

    def enough(self) -> bool:
        return self.settings.most_steps is not None and self.line.version >= self.settings.most_steps

    def counts(self, purpose: str) -> int:
        return self.desk.model.evaluation.get(purpose, 0) if self.desk.model is not None else 0

    def plan_layout(self) -> None:
        """Of the shards that there are now, which may be others than when the run began."""
        state, model = self.record.state, self.desk.model
        if model is not None and (not state.layout.tensors or state.layout.shards != len(self.group.seats)):
            layout = planned(model.tensors, len(self.group.seats), whole=whole(self.optimizer))
            state.layout.CopyFrom(layout)

    async def checkpoint_when_due(self) -> None:
        if self.checkpoints.due(self.line.version):
            await self.checkpoint()

    async def checkpoint(self, best: pb.Evaluation | None = None) -> None:
        await self.checkpoints.begin(self.group, self.line.snapshot(), self.fill, best)
        self.check()

    def fill(self, state: pb.RunState) -> None:
        state.seconds = self.seconds
        state.speeds.clear()
        present = {worker.name for worker in self.desk.members.present}
        state.speeds.update({name: speed for name, speed in self.planner.speeds().items() if name in present})

    def begin(self, phase: Phase) -> None:
        """Those who wait for a share hear of it."""
        self.desk.begin(phase)
        self.changes.told()

    async def work(self, phase: Round, met: Callable[[], bool]) -> None:
        self.begin(phase)
        await self.until(met, phase.waiting, phase)
        self.desk.begin(None)

    async def until(self, met: Callable[[], bool], waiting: Callable[[], str], phase: Phase | None = None) -> None:
        """Stopped, ShardLost, Superseded when that happens meanwhile; RunFailed when nobody works for too long."""
        self._idle_s = 0.0
        while not met():
            self.check()
            if phase is not None and phase.doomed:
                raise RunFailed(phase.doomed)
            self.say(waiting())
            before = self.clock()
            await self.changes.wait(TICK_S)
            # Not more than a second at a time: when this process itself has slept, nobody else was idle.
            self._idle_s += min(1.0, self.clock() - before)
            if any(worker.held is not None for worker in self.desk.members.present):
                self._idle_s = 0.0
            if self._idle_s > self.settings.workers_timeout_s:
                raise RunFailed(f"nobody worked for {self.settings.workers_timeout_s:g} s: the run {waiting()}")

    def check(self) -> None:
        self.check_owner()
        if self.group.lost is not None:
            raise self.group.lost
        if self.stop:
            raise Stopped("asked to stop")

    def check_owner(self) -> None:
        if self.record.superseded is not None:
            raise self.record.superseded

    def say(self, sentence: str) -> None:
        self.sentence = sentence

    async def patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """Tries again while a store is away, for as long as a run may be without workers."""
        end = self.clock() + self.settings.workers_timeout_s
        while True:
            try:
                return await work()
            except Retryable as error:
                if self.clock() > end:
                    raise
                self.say(f"waits for a store: {error.message}")
            self.check()
            await self.changes.wait(AGAIN_S)


def _optimizer(settings: RunSettings) -> ps.Optimizer:
    return ps.Optimizer(
        name=settings.optimizer,
        arguments=json.dumps(settings.optimizer_arguments),
        schedule=settings.schedule,
        schedule_arguments=json.dumps(settings.schedule_arguments) if settings.schedule else "",
    )
