"""One of four workers has a third of the others' speed, and in the middle of the run it is another one: epochs with
dynamic batch sizes against epochs of equal shares."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, pstdev
from typing import Final

from tests.bench.training.quotas import Quota, quota, way
from tests.bench.training.report import Bar, Part, Table
from tests.bench.training.steps import epochs_of, shares_of
from tests.training.brains import Dense
from tests.training.runs import HeldRun, Place

__all__ = ["measure"]

WORKERS: Final = ("worker-0", "worker-1", "worker-2", "worker-3")
FAST, SLOW = 0.42, 0.14
"""Of a core. Of two cores 0.6 are left for control node and shard, so that nobody steals from anybody."""
BRAIN: Final = Dense(inputs=32, outputs=4, width=512, depth=4)
SAMPLES, TEST, BATCH = 32_768, 16_384, 4_096
EPOCHS: Final = 6
MIDDLE: Final = 3
"""Epoch at whose beginning the slow worker is worker-0 and no longer worker-3."""


@dataclass(frozen=True, slots=True)
class Measured:
    plan: str
    seed: int
    epochs: Mapping[int, float]
    accuracy: float
    last_shares: Mapping[str, int]
    """Before the change."""
    shares: Mapping[str, int]
    """At the end."""


async def measure(rounds: int, quick: bool, tell: Callable[[str], None]) -> Part:
    found = []
    for seed in range(1 if quick else rounds):
        for plan in ("equal", "dynamic"):
            tell(f"seed {seed}: {plan} shares")
            found.append(await one(plan, seed))
    part = Part("Dynamic batch size", [_epochs(found), _summary(found)], _bars(found))
    part.notes.append(
        f"Four workers held to {FAST:.0%}, {FAST:.0%}, {FAST:.0%} and {SLOW:.0%} of a core by {way()}; from epoch "
        f"{MIDDLE + 1} on it is the first that is slow. The ideal cut is 60 %."
    )
    part.measured = {
        "runs": [
            {"plan": each.plan, "seed": each.seed, "epochs": dict(each.epochs), "accuracy": each.accuracy}
            for each in found
        ]
    }
    return part


async def one(plan: str, seed: int) -> Measured:
    with tempfile.TemporaryDirectory(prefix="enc-bench-") as folder, contextlib.ExitStack() as stack:
        place = Place.of(Path(folder))
        settings = await place.settings(
            BRAIN,
            SAMPLES,
            test=TEST,
            workers=len(WORKERS),
            batch_size=BATCH,
            plan=plan,
            replan_every=2,
            seed=seed,
            optimizer="SGD",
            optimizer_arguments={"lr": 0.05, "momentum": 0.9},
            epochs=EPOCHS,
            checkpoint_steps=100_000,
            death_s=8.0,
        )
        quotas = {name: stack.enter_context(quota(name, 1.0)) for name in WORKERS}
        async with place.running(settings) as run:
            await run.reached(1)
            slow(run, quotas, "worker-3")
            await run.reached(MIDDLE * SAMPLES // BATCH, within=300)
            slow(run, quotas, "worker-0")
            history = await run.history()
            state = await run.succeeded()
        shares = shares_of(history)
        accuracy = next(iter(state.test.accuracy.values()))
        return Measured(plan, seed, epochs_of(history), accuracy, shares[MIDDLE - 1][-1], shares[EPOCHS - 1][-1])


def slow(run: HeldRun, quotas: Mapping[str, Quota], name: str) -> None:
    for each, held in quotas.items():
        held.part(SLOW if each == name else FAST)
        pid = run.pids[each]
        assert pid is not None
        held.holds(pid)


def _epochs(found: Sequence[Measured]) -> Table:
    rows = []
    for plan in ("equal", "dynamic"):
        runs = [each for each in found if each.plan == plan]
        rows.append([plan, *(f"{median(each.epochs[epoch] for each in runs):.1f}" for epoch in range(EPOCHS))])
    return Table("Seconds per epoch", ("Shares", *(str(epoch + 1) for epoch in range(EPOCHS))), rows)


def _summary(found: Sequence[Measured]) -> Table:
    rows = []
    for plan in ("equal", "dynamic"):
        runs = [each for each in found if each.plan == plan]
        accuracies = [100 * each.accuracy for each in runs]
        before, after = (
            "/".join(str(runs[0].__getattribute__(of)[name]) for name in WORKERS) for of in ("last_shares", "shares")
        )
        rows.append([plan, f"{median(accuracies):.2f} ± {pstdev(accuracies):.2f}", before, after])
    return Table("Accuracy and shares", ("Shares", "Accuracy, %", "Before the change", "At the end"), rows)


def _bars(found: Sequence[Measured]) -> list[Bar]:
    def seconds(plan: str, epochs: Sequence[int]) -> float:
        return median(each.epochs[epoch] for each in found if each.plan == plan for epoch in epochs)

    def cut(*epochs: int) -> float:
        """Per cent of the time of equal shares that dynamic ones save."""
        return 100 * (1 - seconds("dynamic", epochs) / seconds("equal", epochs))

    def mean(plan: str) -> float:
        values = [100 * each.accuracy for each in found if each.plan == plan]
        return sum(values) / len(values)

    return [
        Bar("epoch time cut by, %", ">=", 45, cut(*range(1, MIDDLE))),
        Bar("after the change, %", ">=", 45, cut(*range(MIDDLE + 1, EPOCHS))),
        Bar("difference of accuracy, points", "<=", 0.5, abs(mean("dynamic") - mean("equal"))),
    ]
