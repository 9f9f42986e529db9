"""Memory of a worker against plain PyTorch training of the same model, and of a shard against what it must hold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil

from encephalon.local.plan import MEMORY
from tests.bench.training.report import Bar, Part, Table
from tests.bench.training.rivals.running import REPOSITORY
from tests.bench.training.workload import SAMPLES
from tests.training.brains import LARGE
from tests.training.runs import HeldRun, Place

__all__ = ["measure"]

MIB: Final = 1 << 20
WORKERS, SHARDS = 2, 2
STEPS: Final = 12
"""Updates before anything is read: all buffers are there."""
PARAMETERS: Final = 4 * sum(
    before * after + after
    for before, after in zip(
        [LARGE.inputs, *[LARGE.width] * LARGE.depth], [*[LARGE.width] * LARGE.depth, LARGE.outputs], strict=True
    )
)
"""Bytes."""


async def measure(quick: bool, tell: Callable[[str], None]) -> Part:
    tell("plain PyTorch")
    plain, empty = plain_training(STEPS), plain_training(0)
    tell("a run of two workers and two shards")
    with tempfile.TemporaryDirectory(prefix="enc-bench-") as folder:
        place = Place.of(Path(folder))
        settings = await place.settings(
            LARGE,
            1_000,
            workers=WORKERS,
            shards=SHARDS,
            batch_size=WORKERS * SAMPLES,
            optimizer="AdamW",
            epochs=1_000,
            most_steps=100_000,
            checkpoint_steps=100_000,
        )
        async with place.running(settings) as run:
            await run.reached(STEPS)
            found = {name: held(run, name) for name in run.pids}
            loads = {status.shard: status.held_bytes for status in run.statuses[-1][1].shards}
            run.training.kill()
    return _part(plain, empty, found, loads)


def plain_training(steps: int) -> dict[str, float]:
    """In a process of its own; with no step, what a shard is that holds nothing."""
    command = [sys.executable, "-m", "tests.bench.training.plain", "--steps", str(steps)]
    environment = {**os.environ, **MEMORY}
    done = subprocess.run(
        command, cwd=REPOSITORY, check=True, capture_output=True, text=True, timeout=120, env=environment
    )
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def held(run: HeldRun, name: str) -> dict[str, float]:
    """MiB: all that is mapped, with shared memory counted by the parts that processes have in it; and its own alone."""
    pid = run.pids[name]
    info = psutil.Process(pid).memory_full_info()
    return {"pss": info.pss / MIB, "uss": info.uss / MIB, "rss": info.rss / MIB}


def _part(
    plain: dict[str, float], empty: dict[str, float], found: dict[str, dict[str, float]], loads: dict[int, int]
) -> Part:
    processes = {"plain PyTorch": plain, "a shard that holds nothing": empty, **found}
    rows = [[name, *(f"{one[what]:.0f}" for what in ("pss", "uss", "rss"))] for name, one in processes.items()]
    part = Part("Memory", [Table("25 M parameters, AdamW, MiB", ("Process", "PSS", "USS", "RSS"), rows)])
    worker = max(one["pss"] for name, one in found.items() if name.startswith("worker"))
    shard = max(one["pss"] for name, one in found.items() if name.startswith("shard"))
    # Parameters, two slots, and for each worker a buffer; what torch and Python take is there without any of them.
    must = PARAMETERS / SHARDS * (1 + 2 + WORKERS) / MIB
    part.bars = [
        Bar("worker / plain PyTorch (PSS)", "<=", 1.3, worker / plain["pss"]),
        Bar("shard above an empty one / parameters + slots + 2 buffers", "<=", 1.0, (shard - empty["pss"]) / must),
    ]
    part.notes.append(
        f"A shard must hold {must:.0f} MiB: parameters and slots, by its own account "
        f"{max(loads.values(), default=0) / MIB:.0f} MiB, and a buffer for each worker."
    )
    part.measured = {"plain": plain, "processes": processes, "must": must}
    return part


def own() -> dict[str, float]:
    info = psutil.Process(os.getpid()).memory_full_info()
    return {"pss": info.pss / MIB, "uss": info.uss / MIB, "rss": info.rss / MIB}
