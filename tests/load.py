"""A steady load of bounded size on one brain, and what became of each request."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from encephalon.core.errors import EncephalonError

__all__ = ["Load", "Outcome", "steady_load"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request: seconds on the monotonic clock, and its error if it failed."""

    began: float
    took_s: float
    error: EncephalonError | None


@dataclass(slots=True)
class Load:
    """What has been answered so far."""

    outcomes: list[Outcome] = field(default_factory=list)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def failures(self) -> list[str]:
        return [f"{type(outcome.error).__name__}: {outcome.error}" for outcome in self.outcomes if outcome.error]

    def answered(self) -> int:
        return sum(outcome.error is None for outcome in self.outcomes)

    def since(self, moment: float) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.began >= moment]


@contextlib.asynccontextmanager
async def steady_load(ask: Callable[[], Awaitable[object]], callers: int, pause_s: float = 0.0) -> AsyncIterator[Load]:
    """`callers` tasks ask again and again, each after its own answer and `pause_s`, until the block ends."""
    load = Load()

    async def caller() -> None:
        while not load.stopping.is_set():
            began, error = time.monotonic(), None
            try:
                await ask()
            except EncephalonError as problem:
                error = problem
            load.outcomes.append(Outcome(began, time.monotonic() - began, error))
            if pause_s:
                await asyncio.sleep(pause_s)

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())
        try:
            yield load
        finally:
            load.stopping.set()
