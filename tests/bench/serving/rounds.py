"""The rounds: each system alone, one after the other, again and again, so that a drift of the machine falls on all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from tests.bench.serving.load import Order
from tests.bench.serving.processes import ALLOCATOR, ServerFailed
from tests.bench.serving.system import Endpoint, System
from tests.bench.serving.workload import CALLERS, SIZES, Cell, Measurement

__all__ = ["CELLS", "measure"]

CELLS = tuple(Cell(nbytes, callers) for callers in CALLERS for nbytes in SIZES)
REPOSITORY = Path(__file__).resolve().parents[3]
GRACE_SECONDS = 60.0


def measure(systems: Sequence[System], rounds: int, seconds: float, tell: Callable[[str], None]) -> list[Measurement]:
    """Returns every cell of every system and round; a system that does not start is left out of its round."""
    measurements = []
    for number in range(1, rounds + 1):
        for system in systems:
            tell(f"round {number} of {rounds}: {system.title}")
            try:
                with system.running() as endpoint:
                    measurements += load(system.name, number, endpoint, seconds)
            except (ServerFailed, subprocess.SubprocessError) as error:
                tell(f"{system.title} is left out of this round: {error}")
    return measurements


def load(system: str, number: int, endpoint: Endpoint, seconds: float) -> list[Measurement]:
    """Runs the client program once over all cells."""
    warmup = min(2.0, seconds / 2)
    cells = [(cell.nbytes, cell.callers) for cell in CELLS]
    order = Order(**asdict(endpoint), cells=cells, seconds=seconds, warmup_seconds=warmup)
    client = subprocess.run(
        [sys.executable, "-m", "tests.bench.serving.load", json.dumps(asdict(order))],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=REPOSITORY,
        env={**os.environ, **ALLOCATOR},
        timeout=len(cells) * (seconds + warmup + order.timeout_seconds) + GRACE_SECONDS,
    )
    return [Measurement(system=system, round=number, **json.loads(line)) for line in client.stdout.splitlines()]
