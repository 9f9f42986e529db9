"""What workers and shards compute together is what one process computes: to the bit for the same sums in the same
order, and nearly for the whole batch at once."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training import single
from tests.training.brains import Dense
from tests.training.cluster import cluster, optimizer
from tests.training.reference import Reference, batches, distance, same_bits
from tests.training.runs import Place

SAMPLES, BATCH, UPDATES = 220, 48, 50
"""The last batch of an epoch is smaller."""
OPTIMIZERS: Mapping[str, Mapping[str, Any]] = {
    "SGD": {"lr": 0.05, "momentum": 0.9},
    "AdamW": {"lr": 1e-3},
}


class Odd(nn.Module):
    """Has running statistics, a layer that only some rows need, and a parameter that nobody uses."""

    def __init__(self, *, statistics: bool = True) -> None:
        super().__init__()
        self.first = nn.Linear(12, 40)
        self.norm = nn.BatchNorm1d(40) if statistics else nn.Identity()
        self.large = nn.Linear(40, 64)
        self.seldom = nn.Linear(64, 64)
        self.last = nn.Linear(64, 3)
        self.unused = nn.Parameter(torch.ones(5))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.large(torch.relu(self.norm(self.first(x)))))
        rows = x[:, 0] > 1.9
        if bool(rows.any()):
            y = y + rows[:, None] * self.seldom(y)
        return self.last(y)  # type: ignore[no-any-return]


def made(seed: int = 0, **more: bool) -> nn.Module:
    torch.manual_seed(seed)
    return Odd(**more)


def data() -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(5)
    x = torch.randn(SAMPLES, 12, generator=drawn)
    return x, x[:, :3].argmax(1)


X, LABELS = data()


def losses(model: nn.Module, part: range) -> Tensor:
    rows = slice(part.start, part.stop)
    return nn.functional.cross_entropy(model(X[rows]), LABELS[rows], reduction="sum")


def reference(model: nn.Module, name: str, workers: int, updates: int = UPDATES, **more: Any) -> Reference:
    torch.set_num_threads(1)
    made = Reference.of(model, lambda epoch, part: losses(model, part), name, OPTIMIZERS[name], **more)
    for epoch, parts in batches(SAMPLES, BATCH, workers=workers, updates=updates):
        made.update(epoch, parts)
    return made


async def trained(
    name: str, workers: int, shards: int, updates: int = UPDATES, *, model: nn.Module | None = None, **more: Any
) -> dict[str, Tensor]:
    chosen = optimizer(name, OPTIMIZERS[name], **more.pop("schedule", {}))
    async with cluster(model or made(), losses, chosen, workers=workers, shards=shards, **more) as running:
        for _, parts in batches(SAMPLES, BATCH, workers=workers, updates=updates):
            await running.update(parts)
        return running.state


SOME = [(2, 2), (3, 1), (4, 3)]
ALL = [(workers, shards) for workers in (1, 2, 3, 4) for shards in (1, 2, 3)]
"""Workers and shards."""


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(
    ("workers", "shards"), [pytest.param(*pair, marks=() if pair in SOME else pytest.mark.slow) for pair in ALL]
)
async def test_bit_equal_to_one_process(name: str, workers: int, shards: int) -> None:
    # Over sockets or in shared memory, the bits are the same.
    found = await trained(name, workers, shards, share_memory=workers != 2)
    assert same_bits(found, reference(made(), name, workers).state()) == []


@pytest.mark.parametrize("name", OPTIMIZERS)
async def test_as_good_as_the_whole_batch(name: str) -> None:
    model = made(statistics=False)  # those of a batch are not those of its parts
    found = await trained(name, 2, 1, model=copy.deepcopy(model))
    assert distance(found, reference(model, name, 1).state()) < 1e-5


async def test_clipped_alike_on_all_shards() -> None:
    alone = reference(made(), "SGD", 3, 12, clip_norm=0.1)
    assert alone.norm > 0.1
    assert same_bits(await trained("SGD", 3, 3, 12, clip_norm=0.1), alone.state()) == []


async def test_a_schedule_steps_with_every_update() -> None:
    alone = reference(made(), "AdamW", 2, 12, schedule="StepLR", schedule_arguments={"step_size": 5, "gamma": 0.5})
    found = await trained("AdamW", 2, 2, 12, schedule={"schedule": "StepLR", "step_size": 5, "gamma": 0.5})
    assert same_bits(found, alone.state()) == []


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize(("workers", "shards"), ALL)
async def test_processes_are_bit_equal_too(tmp_path: Path, workers: int, shards: int) -> None:
    place = Place.of(tmp_path)
    for name, arguments in OPTIMIZERS.items():
        settings = await place.settings(
            Dense(width=64),
            SAMPLES,
            run=name,
            workers=workers,
            shards=shards,
            batch_size=BATCH,
            epochs=UPDATES,
            most_steps=UPDATES,
            optimizer=name,
            optimizer_arguments=dict(arguments),
        )
        async with place.running(settings) as run:
            found = await run.weights()
        assert same_bits(found, await single.trained(place, settings, UPDATES)) == [], name
        assert distance(found, await single.trained(place, settings, UPDATES, whole=True)) < 1e-5, name
