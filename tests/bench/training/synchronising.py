"""The time of a step of two workers with 25 million parameters: a whole run of ours (control node, two shards, two
workers, all processes of their own), against PyTorch DDP, hivemind and Flower, by turns."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, Final

from encephalon.local.process import Command
from encephalon.training.runs import RunSettings
from tests.bench.training.limits import limits
from tests.bench.training.report import Bar, Part, Table
from tests.bench.training.rivals.running import RIVALS, Failed, Rival
from tests.bench.training.steps import steps_of
from tests.bench.training.workload import OPTIMIZER, SAMPLES, WARM_UP, Steps
from tests.training.brains import LARGE
from tests.training.lines import lines
from tests.training.runs import Place

__all__ = ["measure"]

WORKERS: Final = 2
SHARDS: Final = 2


@dataclass(frozen=True, slots=True)
class Ours:
    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    shared: bool = True
    rate: float = 0.0
    """Bytes per second to and from each shard, over a line; 0: no line."""

    async def steps(self, count: int) -> Steps:
        with tempfile.TemporaryDirectory(prefix="enc-bench-") as folder:
            place = Place.of(Path(folder)).otherwise(lambda command: _told(command, self.shared))
            settings = await place.settings(
                LARGE,
                1_000,
                workers=WORKERS,
                batch_size=WORKERS * SAMPLES,
                optimizer="SGD",
                optimizer_arguments=OPTIMIZER,
                epochs=1_000,
                most_steps=count + WARM_UP,
                checkpoint_steps=100_000,
                **{"shards": SHARDS, **self.settings},
            )
            if not self.rate:
                return await _taken(place, settings)
            async with lines(place, settings) as (between, opened):
                for line in opened:
                    line.rate = self.rate
                return await _taken(between, settings)


async def _taken(place: Place, settings: RunSettings) -> Steps:
    async with place.running(settings) as run:
        return steps_of(await run.history(), skip=WARM_UP)


GIGABIT: Final = 1e9 / 8 / SHARDS
BF16: Final = {"wire": "bf16"}
FP32 = Ours("Encephalon, fp32")
BY_TURNS = (*RIVALS, FP32)
SOCKETS, HALF, NARROW, NARROW_HALF = (
    Ours("Encephalon, fp32, sockets only", shared=False),
    Ours("Encephalon, bf16", BF16),
    Ours("Encephalon, fp32, 1 Gbit/s", rate=GIGABIT),
    Ours("Encephalon, bf16, 1 Gbit/s", BF16, rate=GIGABIT),
)
ONCE = (
    SOCKETS,
    HALF,
    Ours("Encephalon, top 1 %", {"wire": "topk", "top_k": 0.01}),
    Ours("Encephalon, fp32, one shard", {"shards": 1}),
    NARROW,
    NARROW_HALF,
)
"""Measured in the first round only."""


async def measure(rounds: int, quick: bool, tell: Callable[[str], None]) -> Part:
    taken: dict[str, list[Steps]] = {}
    part = Part("Synchronising")
    for number in range(1, rounds + 1):
        for system in (*BY_TURNS, *(ONCE if number == 1 else ())):
            tell(f"round {number} of {rounds}: {system.title}")
            count = 3 if isinstance(system, Ours) and system.rate else 6 if quick else 12 if system in ONCE else 30
            try:
                found = system.steps(WORKERS, count) if isinstance(system, Rival) else await system.steps(count)
            except Failed as error:
                part.notes.append(str(error))
                continue
            taken.setdefault(system.title, []).append(found)
    tell("what the machine can do at best")
    best = limits()
    part.tables += [_table(taken), _parts(taken, best)]
    part.bars += _bars(taken)
    part.measured = {
        "milliseconds": {title: [each.milliseconds for each in found] for title, found in taken.items()},
        "limits": dict(best),
    }
    return part


def _told(command: Command, shared: bool) -> Command:
    environment = {**command.environment, "ENCEPHALON_SHARE_MEMORY": "true" if shared else "false"}
    return replace(command, environment=environment)


def _middle(taken: Mapping[str, Sequence[Steps]], title: str) -> float | None:
    found = taken.get(title)
    return median(each.milliseconds for each in found) if found else None


def _ratio(taken: Mapping[str, Sequence[Steps]], title: str, against: str) -> float | None:
    """Median over the rounds of the ratio within each."""
    ours, theirs = taken.get(title), taken.get(against)
    if not ours or not theirs:
        return None
    return median(a.milliseconds / b.milliseconds for a, b in zip(ours, theirs, strict=False))


def _table(taken: Mapping[str, Sequence[Steps]]) -> Table:
    rows = []
    for title in taken:
        ratio = _ratio(taken, title, RIVALS[0].title)
        rows.append([title, f"{_middle(taken, title):.0f}", "-" if ratio is None else f"{ratio:.2f}x"])
    head = ("25 M parameters, 2 workers", "ms per step", "against DDP")
    return Table("Step time: passes, synchronising and optimiser", head, rows)


def _parts(taken: Mapping[str, Sequence[Steps]], best: Mapping[str, float]) -> Table:
    rows = [[f"at best: {name}", f"{value:.0f}"] for name, value in best.items()]
    for title, found in taken.items():
        named = {name for each in found for name in each.parts}
        alone = [value for each in found for value in each.compute]
        rows += [[f"{title}: passes", f"{1_000 * median(alone):.0f}"]] if alone else []
        for name in sorted(named):
            values = [value for each in found for value in each.parts.get(name, [])]
            rows.append([f"{title}: {name}", f"{1_000 * median(values):.0f}"])
    return Table("Where the time goes", ("Part", "ms"), rows)


def _bars(taken: Mapping[str, Sequence[Steps]]) -> list[Bar]:
    ddp, hivemind, flower = (rival.title for rival in RIVALS)

    def times_faster(rival: str) -> float | None:
        ratio = _ratio(taken, FP32.title, rival)
        return None if ratio is None else 1 / ratio

    return [
        Bar("step time / DDP over gloo", "<=", 1.5, _ratio(taken, FP32.title, ddp)),
        Bar("times faster than hivemind", ">=", 3.0, times_faster(hivemind)),
        Bar("times faster than Flower", ">=", 3.0, times_faster(flower)),
        Bar("bf16 / fp32 where the network is the limit", "<=", 0.55, _ratio(taken, NARROW_HALF.title, NARROW.title)),
    ]
