"""One run as it is now: what was kept of it, and what its control node says if there is one."""

from __future__ import annotations

from dataclasses import dataclass

from encephalon.api.training.v1.training_pb2 import RunState, RunStatus
from encephalon.cli.training.events import done
from encephalon.local.training import OVER, Runs, TrainingResult, living, result_of, state_name
from encephalon.training.runs import RunSettings

__all__ = ["Look", "look"]


@dataclass(frozen=True, slots=True)
class Look:
    """`status` is None when no control node answers."""

    run: str
    settings: RunSettings
    state: RunState
    status: RunStatus | None

    @property
    def word(self) -> str:
        """Its state: "interrupted" when it should be running and is not, "new" when it never began."""
        if self.status is not None:
            return state_name(self.status.state)
        if self.state.state in OVER:
            return state_name(self.state.state)
        return "interrupted" if self.state.state else "new"

    @property
    def result(self) -> TrainingResult:
        """So far."""
        return result_of(self.settings, self.state, self.status)

    @property
    def epoch(self) -> int:
        """That it is in, or those that are done when it rests."""
        if self.status is not None:
            return min(done(self.status) + 1, self.settings.epochs)
        judged = [*self.state.evaluations, *([self.state.test] if self.state.HasField("test") else [])]
        return max([self.state.progress.epoch, *(each.epoch + 1 for each in judged)])

    @property
    def samples_per_second(self) -> float:
        return self.status.samples_per_second if self.status is not None else self.result.samples_per_second


async def look(runs: Runs, run: str) -> Look:
    """NotFound with the nearest name."""
    settings = await runs.settings(run)
    state, _ = await runs.state(run)
    resting = state.state in OVER
    return Look(run, settings, state, None if resting else await living(runs.store, runs.namespace, run))
