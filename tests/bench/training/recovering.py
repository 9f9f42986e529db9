"""How long a run stands still when a process of it is killed, by role; and that it ends with the weights of the quiet
run none the less."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Final

from tests.bench.training.report import Bar, Part, Table
from tests.training.brains import Dense
from tests.training.reference import same_bits
from tests.training.runs import Place
from tests.training.single import trained

__all__ = ["measure"]

BRAIN: Final = Dense(inputs=32, width=128, depth=3)
NAMES: Final = ("worker-0", "worker-1", "worker-2", "shard-0", "shard-1", "control-node")
APART: Final = 40
"""Updates between two kills."""


async def measure(rounds: int, quick: bool, tell: Callable[[str], None]) -> Part:
    drawn = random.Random(3)
    names = [*NAMES, "control-node"] * (1 if quick else rounds)
    drawn.shuffle(names)
    found: dict[str, list[float]] = {"worker": [], "shard": [], "control": []}
    with tempfile.TemporaryDirectory(prefix="enc-bench-") as folder:
        place, updates = Place.of(Path(folder)), APART * (len(names) + 1)
        settings = await place.settings(
            BRAIN, 2_000, workers=3, shards=2, batch_size=192, epochs=10_000, most_steps=updates, checkpoint_steps=15
        )
        async with place.running(settings) as run:
            for number, name in enumerate(names):
                await run.reached(APART * number + drawn.randint(1, APART - 10))
                tell(f"kill {number + 1} of {len(names)}: {name} at update {run.version}")
                run.kill(name)
                found[name.partition("-")[0]].append(await run.recovered())
            weights = await run.weights()
        unequal = same_bits(weights, await trained(place, settings, updates))
    return _part(found, unequal)


def _part(found: Mapping[str, Sequence[float]], unequal: Sequence[str]) -> Part:
    rows = [[role, str(len(each)), f"{median(each):.1f}", f"{max(each):.1f}"] for role, each in found.items()]
    head = ("kill -9 of a", "Kills", "Median, s", "Longest, s")
    part = Part("Recovery", [Table("Until the run goes on", head, rows)])
    part.bars = [
        Bar("longest, s", "<=", 10, max(max(each) for each in found.values())),
        Bar("tensors that differ in a bit from the quiet run's", "<=", 0, len(unequal)),
    ]
    part.measured = {"seconds": {role: list(each) for role, each in found.items()}, "unequal": list(unequal)}
    return part
