"""A run whose processes are killed and frozen, whose network is slow and breaks, and whose stores are away, ends with
the weights of the quiet run, to the bit.

What the quiet run comes to is computed in this process (`tests.training.single`), which is how equality is judged too.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any, Final

import pytest

from encephalon.training.runs import RunSettings
from tests.servers import etcd_server, juicefs_gateway
from tests.training.brains import Dense
from tests.training.lines import lines
from tests.training.reference import same_bits
from tests.training.runs import HeldRun, Place
from tests.training.single import trained

BRAIN: Final = Dense(inputs=32, width=128, depth=3)
"""Two shards have something of each layer, and an update takes some ten milliseconds."""
SAMPLES, BATCH = 2_000, 192
ROLES: Final = ("worker-1", "shard-0", "control-node")
QUIET_MACHINE_S: Final = 10.0
BUSY_MACHINE_S: Final = 60.0
"""Within which a run recovers; a new process imports torch, for which others may leave it no time."""


async def of(place: Place, updates: int, **more: Any) -> RunSettings:
    quick = {"workers": 2, "shards": 2, "batch_size": BATCH, "epochs": 1_000, "checkpoint_steps": 15}
    return await place.settings(BRAIN, SAMPLES, most_steps=updates, **{**quick, **more})


async def ends_as_the_quiet_run(place: Place, run: HeldRun, settings: RunSettings, within: float = 120.0) -> None:
    found = await run.weights(within)
    state = await run.succeeded()
    assert settings.most_steps is not None
    assert state.checkpoint.version == settings.most_steps
    assert same_bits(found, await trained(place, settings, settings.most_steps)) == []


@pytest.mark.timeout(180)
async def test_one_of_each_role_is_killed(tmp_path: Path) -> None:
    place, drawn = Place.of(tmp_path), random.Random(4)
    settings = await of(place, 160)
    async with place.running(settings) as run:
        for number, name in enumerate(ROLES):
            await run.reached(40 * number + drawn.randint(3, 20))
            run.kill(name)
            assert await run.recovered() < BUSY_MACHINE_S
        assert not run.over
        await ends_as_the_quiet_run(place, run, settings)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_thirty_kills(tmp_path: Path) -> None:
    place, drawn = Place.of(tmp_path), random.Random(1)
    settings = await of(place, 30 * 40, workers=3, optimizer="SGD", optimizer_arguments={"lr": 0.02, "momentum": 0.9})
    names = 5 * ["worker-0", "worker-1", "worker-2", "shard-0", "shard-1", "control-node"]
    drawn.shuffle(names)
    seconds = []
    async with place.running(settings) as run:
        for number, name in enumerate(names):
            await run.reached(35 * number + drawn.randint(1, 30), within=60)
            assert not run.over
            run.kill(name)
            seconds.append((await run.recovered(), name))
        await ends_as_the_quiet_run(place, run, settings, within=300)
    assert max(seconds)[0] < QUIET_MACHINE_S, sorted(seconds)[-5:]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ROLES)
async def test_frozen_for_ten_seconds(tmp_path: Path, name: str) -> None:
    place = Place.of(tmp_path)
    settings = await of(place, 400)
    async with place.running(settings) as run:
        await run.reached(20)
        run.freeze(name)
        await asyncio.sleep(10)  # the fault itself, not a wait for something
        run.thaw(name)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await run.goes_on()
        seconds = loop.time() - began
        await ends_as_the_quiet_run(place, run, settings)
    assert seconds < QUIET_MACHINE_S


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_network_that_is_slow_and_breaks(tmp_path: Path) -> None:
    """Between workers and control node, and between everybody and the shards, orders and gradients alike."""
    place, drawn = Place.of(tmp_path), random.Random(2)
    settings = await of(place, 120)
    async with lines(place, settings) as (slow, all_lines):
        async with slow.running(settings) as run:
            await run.reached(3)
            while not run.over and run.version < 90:
                line = drawn.choice(all_lines)
                line.delay_s = drawn.choice([0.0, 0.005, 0.02])
                drawn.choice(all_lines).drop()
                await run.reached(run.version + drawn.randint(1, 6), within=60)
            for line in all_lines:
                line.delay_s = 0.0
            await ends_as_the_quiet_run(place, run, settings)
        assert sum(line.dropped for line in all_lines) > 10
        assert all(line.passed_bytes for line in all_lines)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_the_stores_are_away_for_fifteen_seconds(tmp_path: Path) -> None:
    async with etcd_server() as etcd, juicefs_gateway() as gateway:
        place = Place.of(tmp_path, state=etcd.url, objects=gateway.url)
        settings = await of(place, 1_500, checkpoint_steps=40)
        async with place.running(settings) as run:
            await run.reached(60)
            await asyncio.gather(etcd.stop(), gateway.stop())
            before = run.version
            await asyncio.sleep(15)  # the fault itself
            assert run.version > before + 20, run.logs
            await asyncio.gather(etcd.start(), gateway.start())
            await ends_as_the_quiet_run(place, run, settings)
