"""Validation at the end of an epoch, and the test at the end of the run."""

from __future__ import annotations

import asyncio

from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.training.controller.course import Course
from encephalon.training.controller.evaluation import parts_of, summed
from encephalon.training.controller.loading import Loading
from encephalon.training.controller.rounds import Round
from encephalon.training.controller.stopping import best_of

__all__ = ["Judging"]


class Judging:
    def __init__(self, course: Course, loading: Loading) -> None:
        self._course = course
        self._loading = loading

    async def close_epoch(self) -> None:
        course = self._course
        line = course.line
        judged = any(each.version == line.version and each.purpose == "validation" for each in line.evaluations)
        best = None
        if course.counts("validation") and not judged:
            evaluation = await self.evaluate("validation")
            line.judged(evaluation)
            if best_of(line.evaluations) is evaluation:
                best = evaluation
        if line.epoch.whole:
            line.next_epoch()
        if best is not None or course.done():
            await course.checkpoint(best)
            await self._secure(best)

    async def _secure(self, best: pb.Evaluation | None) -> None:
        """What early stopping would come back to has to be kept; learning waits for it, but not for ever."""
        course = self._course
        if best is None or course.settings.patience is None:
            return
        for _ in range(3):
            if await course.checkpoints.settled():
                return
            await asyncio.sleep(1.0)
            await course.checkpoint(best)

    async def evaluate(self, purpose: str, version: int | None = None) -> pb.Evaluation:
        course = self._course
        line = course.line
        at = line.version if version is None else version
        template = pb.Share(
            kind=pb.Share.KIND_EVALUATE,
            generation=course.group.generation,
            update=at,
            version=at,
            epoch=line.epoch.number,
            purpose=purpose,
        )
        round = Round(
            template,
            parts_of(course.counts(purpose), course.workers),
            seed=course.settings.seed,
            divisible=True,
            excused=lambda: bool(course.group.away),
        )
        await course.work(round, lambda: round.whole)
        evaluation = summed(round.reports, at, line.epoch.number, purpose)
        evaluation.at_seconds = course.seconds
        course.decided_at = course.clock()
        return evaluation

    async def judge(self) -> None:
        """On the test split, with what the run will leave behind."""
        course = self._course
        state = course.record.state
        best = state.best if course.settings.patience is not None and state.HasField("best") else None
        version = course.line.version
        if not course.counts("test") or state.HasField("test"):
            return
        if best is not None and best.version != version:
            course.consistent = False
            await self._loading.load(best)
            version = best.version
        test = await self.evaluate("test", version)
        test.epoch = self._last_epoch() if best is None else state.best_evaluation.epoch
        state.test.CopyFrom(test)
        course.record.touch()

    def _last_epoch(self) -> int:
        """In which something was learned; behind a whole one the line stands at the beginning of the next."""
        epoch = self._course.line.epoch
        return epoch.number if epoch.done else max(0, epoch.number - 1)
