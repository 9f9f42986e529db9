"""A steady stream of requests at a rate of its own, whatever becomes of them, and what did."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from encephalon.core.errors import DeadlineExceeded, Overloaded

__all__ = ["CAPACITY", "DEADLINE_S", "ROW_MS", "Tally", "overloaded", "percentile", "steady"]

ROW_MS = 10.0
CAPACITY = 1000 / ROW_MS
"""Requests per second of a network that takes `ROW_MS` for each row."""
DEADLINE_S = 0.3
REFUSED_WITHIN_S = 0.05


@dataclass
class Tally:
    """Seconds that each request took, and the number of those that were admitted and missed their deadline."""

    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    late: int = 0

    def report(self) -> str:
        return (
            f"{len(self.answered)} answered (p99 {percentile(self.answered, 0.99) * 1e3:.0f} ms), "
            f"{len(self.refused)} refused (p99 {percentile(self.refused, 0.99) * 1e3:.1f} ms), {self.late} late"
        )

    def holds(self, possible: float) -> bool:
        """Of `possible` answers most were given, in time; all else was refused soon."""
        total = len(self.answered) + len(self.refused) + self.late
        return (
            self.late <= 0.01 * (len(self.answered) + self.late)
            and percentile(self.answered, 0.99) <= DEADLINE_S
            and percentile(self.refused, 0.99) < REFUSED_WITHIN_S
            and len(self.answered) > 0.7 * possible
            and len(self.refused) > 0.5 * total
        )


async def steady(ask: Callable[[], Awaitable[object]], rate: float, seconds: float) -> Tally:
    """Calls `ask` `rate` times a second for so long and waits for the last one."""
    tally = Tally()

    async def one() -> None:
        began = time.monotonic()
        try:
            await ask()
            tally.answered.append(time.monotonic() - began)
        except Overloaded:
            tally.refused.append(time.monotonic() - began)
        except DeadlineExceeded:
            tally.late += 1

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        started = 0
        while (passed := time.monotonic() - began) < seconds:
            while started < passed * rate:
                group.create_task(one())
                started += 1
            await asyncio.sleep(1 / rate)
    return tally


async def overloaded(ask: Callable[[], Awaitable[object]], rate: float, seconds: float, possible: float) -> Tally:
    """A stream for which `Tally.holds`, of three at most: another program may hold up this machine for one of them."""
    tallies: list[Tally] = []
    for _ in range(3):
        tallies.append(await steady(ask, rate, seconds))
        if tallies[-1].holds(possible):
            return tallies[-1]
    raise AssertionError("; ".join(tally.report() for tally in tallies))


def percentile(values: Sequence[float], share: float) -> float:
    """Infinite when there are none: a bound on it is not kept then."""
    return math.inf if not values else sorted(values)[min(len(values) - 1, int(share * len(values)))]
