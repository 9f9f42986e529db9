"""Brings all shards to one version: out of a checkpoint, or as they are when a control node comes back."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as ps
from encephalon.core.errors import EncephalonError
from encephalon.training.controller.course import Course
from encephalon.training.controller.failures import RunFailed, ShardLost, Stopped
from encephalon.training.controller.lineage import Lineage
from encephalon.training.controller.plans import buffers_of
from encephalon.training.controller.resuming import behind, last_decision, notes_since

__all__ = ["Loading"]

_log = structlog.get_logger(__name__)

MOST_RELOADS: Final = 20
"""In a row, without one update between them."""


class Loading:
    def __init__(self, course: Course) -> None:
        self._course = course

    async def ready(self, resuming: bool) -> None:
        """All shards are there and at one version, that of the lineage."""
        course = self._course
        course.consistent = False
        await course.group.gather(course.say, course.check)
        if resuming and await self._continue():
            _log.info("goes on with what the shards hold", version=course.line.version)
        else:
            await self.load(course.record.state.checkpoint)
            course.lineage = Lineage(course.desk.agreed.samples, course.checkpoints.snapshot)
        # A shard refuses an update whose number was decided or dropped before, also under an earlier generation.
        in_step = course.settings.mode == "sync"
        course.next_update = course.line.version + 1 if in_step else (course.group.generation << 32) + 1
        course.decided_at = course.clock()
        course.consistent = True
        course.changes.told()

    async def load(self, checkpoint: ps.Checkpoint | None) -> None:
        """Under a new generation; without a checkpoint the shards keep what they hold, and only drop what waits."""
        course = self._course
        state = course.record.state
        seen = [seat.seen.generation for seat in course.group.seats if seat.seen.run == course.settings.run]
        state.generation = max([state.generation, *seen]) + 1
        course.record.touch()
        version = course.line.version if checkpoint is None else checkpoint.version
        course.say(f"loads version {version} into {len(course.group.seats)} shards")
        await course.group.load(
            ps.LoadRequest(
                run=course.settings.run,
                generation=state.generation,
                layout=state.layout,
                optimizer=course.optimizer,
                checkpoint=checkpoint,
                buffers=buffers_of(course.workers),
            )
        )

    async def _continue(self) -> bool:
        course = self._course
        seats = course.group.seats
        late = behind(seats, course.settings.run)
        notes = notes_since(seats, course.checkpoints.snapshot.version)
        if late is None or notes is None:
            return False
        line = Lineage(course.desk.agreed.samples, course.checkpoints.snapshot)
        try:
            for note in notes:
                line.replay(note)
            if late and (last := last_decision(seats)) is not None:
                await course.group.decide(self._repeated(last), late)
            course.lineage = line
            if line.last is not None:
                course.before_s = max(course.before_s, line.last.at_seconds)
            await self.load(None)
        except EncephalonError as error:
            _log.warning("what the shards hold cannot be gone on with", cause=error.message)
            await course.group.gather(course.say, course.check)
            return False
        return True

    def _repeated(self, last: ps.Decided) -> ps.DecideRequest:
        return ps.DecideRequest(
            run=self._course.settings.run,
            generation=self._course.group.seats[0].seen.generation,
            update=last.update,
            decision=last.decision,
            version=last.version,
            scale=last.scale,
            note=last.note,
        )

    async def fall_back(self, lost: ShardLost) -> None:
        course = self._course
        course.check_owner()
        if course.stop:
            raise Stopped("asked to stop")
        course.consistent = False
        course.recoveries += 1
        course.reloads += 1
        if course.reloads > MOST_RELOADS:
            raise RunFailed(f"{lost.message}; everything was loaded {MOST_RELOADS} times in vain")
        course.desk.begin(None)
        await course.checkpoints.abandon()
        _log.warning(
            "a shard is lost; the run goes back to its checkpoint",
            cause=lost.message,
            version=course.checkpoints.snapshot.version,
        )
        if course.reloads > 1:
            await asyncio.sleep(min(2.0, 0.1 * 2.0**course.reloads))
