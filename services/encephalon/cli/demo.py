"""`encephalon demo`: a brain of three regions on real digits, from nothing to a table."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from encephalon.cli import interrupts, report, screen
from encephalon.cli.interrupts import Interrupts
from encephalon.cli.trial import Trial, send
from encephalon.client import connect
from encephalon.core.errors import InvalidInput
from encephalon.library.brains import load_manifest
from encephalon.library.sample import Sample, load_sample
from encephalon.local import Options, Placement, example, supervised

__all__ = ["run"]

BRAIN = "digits"


def run(*, pairs: int | None, show: int, concurrency: int, colocated: bool, as_json: bool) -> None:
    sample = load_sample()
    count = len(sample.labels) if pairs is None else pairs
    if count > len(sample.labels):
        raise InvalidInput(f"--pairs is {count}, the sample has {len(sample.labels)} pairs")

    async def command(interrupted: Interrupts) -> tuple[Trial, float]:
        return await trial(sample, count, concurrency, colocated, interrupted)

    result, start_seconds = interrupts.run(command)
    if as_json:
        print_json(report.figures(BRAIN, result, start_seconds, concurrency))
    else:
        report.show(screen.output(), sample, result, show)


async def trial(
    sample: Sample, pairs: int, concurrency: int, colocated: bool, interrupted: Interrupts
) -> tuple[Trial, float]:
    """Runs the brain with a state folder of its own, which goes away with it, and sends the sample."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="encephalon-demo-", ignore_cleanup_errors=True) as folder:
        placement: Placement = "colocated" if colocated else "distributed"
        options = Options(listen="127.0.0.1:0", placement=placement, state_dir=Path(folder))
        manifest = example(BRAIN)
        brain = load_manifest(manifest)
        async with supervised(manifest, options) as supervisor:
            interrupted.hurry = supervisor.kill
            with screen.starting(brain.name, len(brain.regions)) as progress:
                await supervisor.until_ready(progress)
            start_seconds = time.perf_counter() - began
            async with connect(supervisor.address) as brains:
                with screen.bar(f"Sending {pairs} pictures and sounds", pairs) as told:
                    return await send(brains, brain, sample, pairs, concurrency, told), start_seconds


def print_json(figures: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")
