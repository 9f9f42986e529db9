"""What a brain made of a sample: one verdict per pair, and the figures that follow from them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from encephalon.client import Answer, Brains
from encephalon.library.brains import Brain
from encephalon.library.sample import Sample

__all__ = ["ABSENT", "SENSES", "Trial", "Verdict", "percentiles", "send"]

SENSES = {"image": "image_probabilities", "audio": "audio_probabilities", "fused": "probabilities"}


ABSENT = -1


@dataclass(frozen=True, slots=True)
class Verdict:
    """One pair: the digit that it is, what each sense took it for, how sure it was (0 to 1), and milliseconds.

    A sense that came too late for this pair has the digit `ABSENT`.
    """

    label: int
    digits: Mapping[str, int]
    certainty: Mapping[str, float]
    latency_ms: float
    region_ms: Mapping[str, float]

    @property
    def right(self) -> bool:
        return self.digits["fused"] == self.label

    @property
    def disputed(self) -> bool:
        """True when the senses disagree."""
        return self.digits["image"] != self.digits["audio"]


@dataclass(frozen=True, slots=True)
class Trial:
    """The verdicts in the order of the sample, how long all of it took, and the regions in the order of their work."""

    verdicts: list[Verdict]
    seconds: float
    regions: tuple[str, ...]

    def accuracy(self, sense: str) -> float:
        return sum(verdict.digits[sense] == verdict.label for verdict in self.verdicts) / len(self.verdicts)

    def latency(self) -> dict[str, float]:
        return percentiles([verdict.latency_ms for verdict in self.verdicts])

    def region_latency(self) -> dict[str, dict[str, float]]:
        found = {
            name: [verdict.region_ms[name] for verdict in self.verdicts if name in verdict.region_ms]
            for name in self.regions
        }
        return {name: percentiles(milliseconds) for name, milliseconds in found.items() if milliseconds}


def percentiles(milliseconds: list[float]) -> dict[str, float]:
    p50, p99 = np.percentile(milliseconds, [50, 99])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}


async def send(
    brains: Brains, brain: Brain, sample: Sample, pairs: int, concurrency: int, told: Callable[[int], None]
) -> Trial:
    """Asks the brain for every pair, `concurrency` at a time; `told` hears how many are done."""
    verdicts: dict[int, Verdict] = {}
    waiting = iter(range(pairs))

    async def ask_on() -> None:
        for index in waiting:
            verdicts[index] = await ask(brains, brain.name, sample, index)
            told(len(verdicts))

    began = time.perf_counter()
    try:
        async with asyncio.TaskGroup() as callers:
            for _ in range(min(concurrency, pairs)):
                callers.create_task(ask_on())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    seconds = time.perf_counter() - began
    return Trial([verdicts[index] for index in range(pairs)], seconds, tuple(region.name for region in brain.regions))


async def ask(brains: Brains, brain: str, sample: Sample, index: int) -> Verdict:
    began = time.perf_counter()
    answer = await brains.infer(brain, image=sample.images[index], audio=sample.audio[index])
    return verdict(answer, int(sample.labels[index]), (time.perf_counter() - began) * 1000)


def verdict(answer: Answer, label: int, latency_ms: float) -> Verdict:
    rows: dict[str, np.ndarray[Any, Any]] = {
        sense: answer[output] for sense, output in SENSES.items() if output in answer
    }
    return Verdict(
        label=label,
        digits={sense: int(rows[sense].argmax()) if sense in rows else ABSENT for sense in SENSES},
        certainty={sense: float(rows[sense].max()) if sense in rows else 0.0 for sense in SENSES},
        latency_ms=latency_ms,
        region_ms=answer.timings,
    )
