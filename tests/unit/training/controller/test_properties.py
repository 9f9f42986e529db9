"""Whatever happens to workers, shards, stores and control nodes: each sample once, batches whole, versions in order."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.core.errors import FailedPrecondition
from encephalon.training.controller.epoch import Epoch
from tests.unit.training.controller.simulation import Crew, World, settings_of
from tests.virtual_time import run

FAULTS = ["kill worker", "start worker", "kill shard", "freeze shard", "kill control", "store away", "objects away"]
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
LONG = settings(
    max_examples=1500,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],  # shrinking a whole run takes longer than finding it
)

worlds = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["sync", "ssp", "async"]),
        "plan": st.sampled_from(["dynamic", "equal", "fixed"]),
        "workers": st.integers(1, 4),
        "shards": st.integers(1, 3),
        "samples": st.integers(1, 60),
        "batch_size": st.integers(4, 20),
        "staleness": st.integers(0, 3),
        "checkpoint_steps": st.integers(1, 8),
        "seed": st.integers(0, 1000),
        "loss": st.sampled_from([0.0, 0.05]),
        "duplicates": st.sampled_from([0.0, 0.3]),
        "fences": st.booleans(),
        "validation": st.sampled_from([0, 70]),
    }
)
fault = st.tuples(st.floats(0, 3), st.sampled_from(FAULTS), st.integers(0, 3))
faults = st.lists(fault, max_size=8)
many_faults = st.lists(fault, max_size=25)


def world_of(drawn: dict[str, int]) -> World:
    run_settings = settings_of(
        **{name: drawn[name] for name in ("mode", "plan", "workers", "batch_size", "staleness", "checkpoint_steps")}
    )
    evaluation = {"validation": drawn["validation"]} if drawn["validation"] else {}
    return World(
        run_settings,
        samples=drawn["samples"],
        shards=drawn["shards"],
        evaluation=evaluation,
        seed=drawn["seed"],
        loss=drawn["loss"],
        fences=bool(drawn["fences"]),
    )


async def lived(drawn: dict[str, int], happening: list[tuple[float, str, int]]) -> None:
    world = world_of(drawn)
    crew = Crew(world, duplicates=drawn["duplicates"])
    speeds = Random(drawn["seed"])
    await world.start()
    for number in range(drawn["workers"]):
        crew.start(f"worker-{number}", speeds.choice([0.02, 0.1, 0.5]))
    try:
        async with asyncio.timeout(600):
            for pause, what, number in happening:
                await asyncio.sleep(pause)
                if world.task is not None and world.task.done():
                    break
                await happens(world, crew, what, number)
            outcome = await world.ended()
    finally:
        await crew.close()
        await world.kill_control()
    assert outcome == pb.RunState.STATE_SUCCEEDED, world.state.sentence
    world.check()


async def happens(world: World, crew: Crew, what: str, number: int) -> None:
    shard = world.servers[number % len(world.servers)]
    match what:
        case "kill worker":
            crew.kill(f"worker-{number}")
            asyncio.get_running_loop().call_later(5.0, crew.start, f"worker-{number}")  # its supervisor
        case "start worker":
            crew.start(f"worker-{number}")
        case "kill shard":
            shard.die()
        case "freeze shard":
            shard.frozen = True
            asyncio.get_running_loop().call_later(5.0, setattr, shard, "frozen", False)
        case "kill control":
            await world.kill_control()
            await asyncio.sleep(0.3)
            await world.start()
        case "store away":
            world.store.away = True
            asyncio.get_running_loop().call_later(4.0, setattr, world.store, "away", False)
        case "objects away":
            world.objects.away = True
            asyncio.get_running_loop().call_later(4.0, setattr, world.objects, "away", False)


@QUICK
@given(drawn=worlds, happening=faults)
def test_a_run_survives_whatever_happens(drawn: dict[str, int], happening: list[tuple[float, str, int]]) -> None:
    run(lived(drawn, happening))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@LONG
@given(drawn=worlds, happening=many_faults)
def test_runs_survive_whatever_happens_for_long(drawn: dict[str, int], happening: list[tuple[float, str, int]]) -> None:
    run(lived(drawn, happening))


@given(samples=st.integers(0, 200), steps=st.lists(st.tuples(st.sampled_from("gbcr"), st.integers(0, 50)), max_size=60))
def test_ranges_are_free_given_or_committed_and_nothing_else(samples: int, steps: list[tuple[str, int]]) -> None:
    epoch = Epoch(3, samples)
    given_out: list[tuple[int, int]] = []
    committed: list[int] = []
    for what, number in steps:
        if what == "g" and (range_ := epoch.give(number)) is not None:
            assert 0 < range_[1] - range_[0] <= number
            given_out.append(range_)
        elif what in "bc" and given_out:
            range_ = given_out.pop(number % len(given_out))
            (epoch.give_back if what == "b" else epoch.commit)(range_)
            committed += range(*range_) if what == "c" else []
            with pytest.raises(FailedPrecondition):
                epoch.commit(range_)
        elif what == "r":
            epoch, given_out = Epoch(3, samples, epoch.progress()), []
        assert epoch.done == len(committed)
        assert epoch.done + epoch.left + sum(stop - start for start, stop in given_out) == samples
    while (range_ := epoch.give(7)) is not None:
        epoch.commit(range_)
        committed += range(*range_)
    for range_ in given_out:
        epoch.commit(range_)
        committed += range(*range_)
    assert sorted(committed) == list(range(samples))
    assert epoch.whole
