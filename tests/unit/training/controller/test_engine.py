"""The way of a run, step by step, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as ps
from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.training.recording.history import History
from tests.unit.training.controller.simulation import Crew, World, settings_of
from tests.virtual_time import run
from tests.waiting import until

Script = Callable[[World, Crew], Awaitable[None]]


def lived(world: World, script: Script, crew: Crew | None = None) -> None:
    async def live() -> None:
        own = crew or Crew(world)
        await world.start()
        try:
            async with asyncio.timeout(2000):
                await script(world, own)
        finally:
            await own.close()
            await world.kill_control()

    run(live())


async def version(world: World, at: int) -> None:
    await until(lambda: world.servers[0].version >= at, within=1000, what=f"version {at}")


def holds(crew: Crew, name: str) -> bool:
    return any(worker == name and share.kind == pb.Share.KIND_TRAIN for worker, share in crew.given)


@pytest.mark.parametrize("mode", ["sync", "ssp", "async"])
def test_a_quiet_run_uses_every_sample_once_and_is_recorded(mode: str) -> None:
    world = World(settings_of(mode=mode, workers=3, batch_size=12), shards=2, evaluation={"test": 100})

    async def script(world: World, crew: Crew) -> None:
        for number in range(3):
            crew.start(f"worker-{number}")
        assert await world.ended() == pb.RunState.STATE_SUCCEEDED
        world.check()
        state = world.state
        assert state.checkpoint.version == world.servers[0].version == len(world.servers[0].applied)
        assert state.test.samples == 100
        assert state.test.epoch == world.settings.epochs - 1  # the last one, not the one behind it
        assert state.test.accuracy["y"] == 1
        assert state.made["run"] == "run:r@1"
        history = History.read(world.objects.objects[state.history_key])
        assert [step.version for step in history.steps] == list(range(1, state.checkpoint.version + 1))
        assert history.steps[0].learning_rate == 0.5
        assert history.steps[0].loss == 2.0

    lived(world, script)


def test_a_fixed_plan_gives_the_same_shares_whoever_computes_them() -> None:
    settings = settings_of(plan="fixed", workers=3, batch_size=11, epochs=1)
    seen = []
    for workers in (1, 2, 5):
        world = World(settings, seed=workers)

        async def script(world: World, crew: Crew, workers: int = workers) -> None:
            for number in range(workers):
                crew.start(f"worker-{number}")
            await world.ended()
            world.check()
            train = [share for _, share in crew.given if share.kind == pb.Share.KIND_TRAIN]
            seen.append(sorted((s.update, s.rank, s.start, s.stop, s.divisor, s.seed) for s in train))

        lived(world, script)
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][0][:4] == (1, 0, 0, 4)


def test_a_slow_worker_keeps_its_share_as_long_as_it_lives() -> None:
    async def script(world: World, crew: Crew) -> None:
        crew.start("slow", 60.0)
        crew.start("fast")
        await world.ended()
        world.check()
        assert all(share.attempt == 0 for _, share in crew.given)
        assert "slow" in world.servers[0].decisions[0].note.decode(errors="replace")

    lived(World(settings_of(workers=2, batch_size=10, plan="equal", epochs=1), samples=20), script)


def test_the_share_of_a_lost_worker_is_done_by_another_within_its_update() -> None:
    async def script(world: World, crew: Crew) -> None:
        crew.start("a")
        crew.start("b", 1000.0)
        await until(lambda: holds(crew, "b"))
        began = asyncio.get_running_loop().time()
        at = world.servers[0].version
        crew.kill("b")
        await version(world, at + 1)
        assert asyncio.get_running_loop().time() - began < 4
        await world.ended()
        world.check()
        assert any(share.attempt == 1 for _, share in crew.given)

    lived(World(settings_of(workers=2, batch_size=10, plan="equal", epochs=1)), script)


def test_a_shard_without_memory_takes_the_run_back_to_its_checkpoint() -> None:
    async def script(world: World, crew: Crew) -> None:
        crew.start("a")
        await version(world, 7)
        world.servers[1].die()
        assert await world.ended() == pb.RunState.STATE_SUCCEEDED
        world.check()
        assert world.state.generation == 2
        assert world.engine is not None
        assert world.engine.recoveries == 1

    lived(World(settings_of(batch_size=5, epochs=3, checkpoint_steps=4), shards=2), script)


@pytest.mark.parametrize("mode", ["sync", "ssp"])
def test_a_control_node_that_comes_back_loses_nothing(mode: str) -> None:
    async def script(world: World, crew: Crew) -> None:
        crew.start("a")
        crew.start("b")
        await version(world, 7)
        await world.kill_control()
        at = world.servers[0].version
        await asyncio.sleep(1)
        await world.start()
        await version(world, at + 1)
        assert len(world.servers[0].decided) >= at, "nothing was loaded again"
        await world.ended()
        world.check()
        history = History.read(world.objects.objects[world.state.history_key])
        assert [step.version for step in history.steps] == list(range(1, world.state.checkpoint.version + 1))

    lived(World(settings_of(mode=mode, workers=2, batch_size=5, epochs=3, checkpoint_steps=1000), shards=2), script)


def test_a_shard_that_missed_the_last_decision_hears_it_from_the_next_control_node() -> None:
    async def script(world: World, crew: Crew) -> None:
        crew.start("a")
        await version(world, 5)
        late = world.servers[1]
        for _ in range(100_000):  # killed between two decisions of the same update
            if late.version != world.servers[0].version:
                break
            await asyncio.sleep(0.0005)
        await world.kill_control()
        behind = min(server.version for server in world.servers)
        await world.start()
        await version(world, behind + 2)
        assert all(len(server.decided) > behind for server in world.servers), "nothing was loaded again"
        await world.ended()
        world.check()

    lived(World(settings_of(batch_size=5, epochs=3, checkpoint_steps=1000), shards=2), script)


def test_stop_leaves_a_checkpoint_and_the_run_goes_on_from_it_with_other_shards() -> None:
    async def script(world: World, crew: Crew) -> None:
        engine = world.engine
        assert engine is not None
        crew.start("a")
        await version(world, 3)
        engine.request_stop()
        assert await world.ended() == pb.RunState.STATE_STOPPED
        assert world.state.checkpoint.version == world.servers[0].version
        world.servers[:] = [type(world.servers[0])(number, world.objects) for number in range(3)]
        await world.start()
        assert await world.ended() == pb.RunState.STATE_SUCCEEDED
        world.check()
        assert world.state.layout.shards == 3

    lived(World(settings_of(batch_size=5)), script)


def test_a_shard_that_stays_away_ends_the_run_so_that_it_can_be_resumed() -> None:
    async def script(world: World, crew: Crew) -> None:
        crew.start("a")
        await version(world, 5)
        world.servers[0].frozen = True
        assert await world.ended() == pb.RunState.STATE_FAILED
        assert "shard 0" in world.state.sentence
        world.servers[0].frozen = False
        await world.start()
        assert await world.ended() == pb.RunState.STATE_SUCCEEDED
        world.check()

    lived(World(settings_of(batch_size=5, checkpoint_steps=2)), script)


def test_a_run_without_workers_ends_after_its_time_and_says_what_it_waited_for() -> None:
    async def script(world: World, crew: Crew) -> None:
        crew.start("a")
        await version(world, 2)
        crew.kill("a")
        assert await world.ended() == pb.RunState.STATE_FAILED
        assert "nobody worked for 300 s" in world.state.sentence
        assert world.state.checkpoint.version == world.servers[0].version

    lived(World(settings_of(batch_size=5)), script)


def test_stores_that_are_away_stop_no_learning_and_are_told() -> None:
    async def script(world: World, crew: Crew) -> None:
        crew.start("a")
        await version(world, 2)
        engine = world.engine
        assert engine is not None
        world.store.away = world.objects.away = True
        at = world.servers[0].version
        await version(world, at + 10)
        assert engine.checkpoints.problem
        world.store.away = world.objects.away = False
        assert await world.ended() == pb.RunState.STATE_SUCCEEDED
        assert not engine.checkpoints.problem
        world.check()

    lived(World(settings_of(batch_size=5, checkpoint_steps=3, epochs=5)), script)


def test_a_full_disk_stops_no_learning_and_is_told() -> None:
    async def script(world: World, crew: Crew) -> None:
        crew.start("a")
        await version(world, 2)
        engine, shard = world.engine, world.servers[1]
        assert engine is not None
        shard.full = True
        await version(world, shard.version + 10)
        assert "the disk is full" in engine.checkpoints.problem
        shard.full = False
        assert await world.ended() == pb.RunState.STATE_SUCCEEDED
        assert not engine.checkpoints.problem
        world.check()

    lived(World(settings_of(batch_size=5, checkpoint_steps=3, epochs=5), shards=2), script)


def test_a_gradient_that_is_not_finite_stops_the_run_with_worker_region_and_tensor() -> None:
    world = World(settings_of(batch_size=5))
    world.servers[0].not_finite = lambda update: "vision/conv.weight" if update == 3 else ""

    async def script(world: World, crew: Crew) -> None:
        crew.start("a")
        assert await world.ended() == pb.RunState.STATE_FAILED
        for word in ("'a'", "'vision'", "'conv.weight'"):
            assert word in world.state.sentence
        assert world.state.checkpoint.version == 2

    lived(world, script)


def test_skipping_and_clipping_are_decided_for_all_shards_alike() -> None:
    world = World(settings_of(batch_size=5, non_finite="skip", clip_norm=1.0), shards=2)
    world.servers[0].not_finite = lambda update: "vision/conv.weight" if update == 3 else ""
    for server in world.servers:
        server.norms = lambda update: 8.0 if update == 4 else 0.25

    async def script(world: World, crew: Crew) -> None:
        crew.start("a")
        assert await world.ended() == pb.RunState.STATE_SUCCEEDED
        for server in world.servers:
            assert server.decisions[2].decision == ps.DecideRequest.DECISION_SKIP
            assert server.decisions[3].scale == 0.25
            assert server.decisions[4].scale == 1.0
        assert world.state.sentence.startswith("1 of ")

    lived(world, script)


def test_a_run_of_which_every_update_was_skipped_has_learned_nothing() -> None:
    world = World(settings_of(batch_size=5, non_finite="skip"), shards=2)
    world.servers[0].not_finite = lambda update: "vision/conv.weight"

    async def script(world: World, crew: Crew) -> None:
        crew.start("a")
        assert await world.ended() == pb.RunState.STATE_FAILED
        assert "updates were skipped" in world.state.sentence
        assert not world.state.made

    lived(world, script)


def test_a_worker_that_always_fails_ends_the_run_with_its_own_words() -> None:
    async def script(world: World, crew: Crew) -> None:
        crew.failing["a"] = "out of memory"
        crew.start("a")
        assert await world.ended() == pb.RunState.STATE_FAILED
        assert "out of memory" in world.state.sentence

    lived(World(settings_of(batch_size=5)), script)


def test_patience_ends_the_run_and_the_best_parameters_are_judged() -> None:
    world = World(settings_of(batch_size=10, epochs=9, patience=2), evaluation={"validation": 30, "test": 40})
    crew_losses = [3.0, 1.0, 2.0, 2.5, 0.0]

    async def live() -> None:
        crew = Crew(world)
        crew.losses = crew_losses
        await world.start()
        crew.start("a")
        assert await world.ended() == pb.RunState.STATE_SUCCEEDED
        state = world.state
        assert [each.loss for each in state.evaluations] == [3.0, 1.0, 2.0, 2.5]
        assert state.best.version == state.test.version == 10
        assert state.best_evaluation.epoch == state.test.epoch == 1
        assert {piece.key for piece in state.best.pieces} <= set(world.objects.objects)
        assert state.checkpoint.version == 20
        await crew.close()
        await world.kill_control()

    run(live())


def test_most_steps_end_a_run_in_the_middle_of_an_epoch() -> None:
    for mode in ("sync", "async"):

        async def script(world: World, crew: Crew) -> None:
            crew.start("a")
            crew.start("b")
            assert await world.ended() == pb.RunState.STATE_SUCCEEDED
            assert world.state.checkpoint.version == world.servers[0].version == 4

        lived(World(settings_of(batch_size=10, workers=2, most_steps=4, mode=mode)), script)


def test_old_pieces_are_deleted_but_for_the_last_two() -> None:
    async def script(world: World, crew: Crew) -> None:
        crew.start("a")
        await world.ended()
        versions = {key.split("/")[2].split("-")[0] for key in world.objects.objects if "/shard-" in key}
        assert len(versions) == 2

    lived(World(settings_of(batch_size=5, checkpoint_steps=2)), script)


def test_a_share_that_fits_nobody_is_cut_when_its_worker_is_gone() -> None:
    world = World(settings_of(batch_size=12, workers=2, plan="equal", epochs=1), samples=24)
    crew: list[Crew] = []

    async def live() -> None:
        crew.append(Crew(world, limits={"small": 3}))
        await world.start()
        crew[0].start("small")
        crew[0].start("large", 1000.0)
        await until(lambda: holds(crew[0], "large"))
        crew[0].kill("large")
        await world.ended()
        world.check()
        assert all(share.stop - share.start <= 3 for worker, share in crew[0].given if worker == "small")
        await crew[0].close()
        await world.kill_control()

    run(live())


def test_time_counts_from_the_first_share_to_the_last_update() -> None:
    world = World(settings_of(batch_size=5, epochs=1), evaluation={"test": 10_000})

    async def script(world: World, crew: Crew) -> None:
        await asyncio.sleep(100)  # nobody is there
        assert world.engine is not None
        assert world.engine.seconds == 0
        assert world.engine.elapsed >= 100
        crew.start("a")
        await world.ended()
        history = History.read(world.objects.objects[world.state.history_key])
        assert history.steps[0].at_seconds < 1
        assert history.steps[0].seconds < 1
        assert history.steps[-1].at_seconds < world.state.seconds < history.steps[-1].at_seconds + 1

    lived(world, script)


def test_time_goes_on_when_a_control_node_comes_back() -> None:
    async def script(world: World, crew: Crew) -> None:
        crew.start("a")
        await version(world, 7)
        await world.kill_control()
        await asyncio.sleep(50)
        await world.start()
        await world.ended()
        times = [step.at_seconds for step in History.read(world.objects.objects[world.state.history_key]).steps]
        assert times == sorted(times)
        assert times[-1] < 30

    lived(World(settings_of(batch_size=5, epochs=3, checkpoint_steps=1000)), script)


def test_an_update_of_more_parts_than_a_shard_holds_is_refused_and_no_hang() -> None:
    world = World(settings_of(batch_size=70, plan="equal"), samples=140)

    async def script(world: World, crew: Crew) -> None:
        crew.start("a")
        assert await world.ended() == pb.RunState.STATE_FAILED
        assert "70 parts" in world.state.sentence

    lived(world, script, Crew(world, limits={"a": 1}))


def test_a_shard_that_freezes_while_it_loads_is_noticed() -> None:
    world = World(settings_of(batch_size=5), shards=2)

    async def script(world: World, crew: Crew) -> None:
        load = world.transport.load

        async def freezing(instance: str, request: ps.LoadRequest, timeout_s: float) -> ps.LoadResponse:
            world.servers[1].frozen = True
            return await load(instance, request, timeout_s)

        world.transport.load = freezing  # type: ignore[method-assign]
        began = asyncio.get_running_loop().time()
        crew.start("a")
        assert await world.ended() == pb.RunState.STATE_FAILED
        assert "shard 1 has not answered for 60 s" in world.state.sentence
        assert asyncio.get_running_loop().time() - began < 100

    lived(world, script)


def test_a_control_node_that_comes_back_remembers_what_was_judged() -> None:
    world = World(
        settings_of(batch_size=10, epochs=4, patience=3, checkpoint_steps=1000), evaluation={"validation": 30}
    )

    async def script(world: World, crew: Crew) -> None:
        crew.losses = [1.0, 2.0, 3.0, 4.0]  # only the first one is the best, and kept with a checkpoint
        crew.start("a")
        await version(world, 12)
        await world.kill_control()
        await world.start()
        assert await world.ended() == pb.RunState.STATE_SUCCEEDED
        assert [each.loss for each in world.state.evaluations] == crew.losses
        history = History.read(world.objects.objects[world.state.history_key])
        assert [each.epoch for each in history.evaluations] == [0, 1, 2, 3]

    lived(world, script)


def test_another_control_node_takes_over_and_this_one_ends() -> None:
    async def script(world: World, crew: Crew) -> None:
        crew.start("a")
        await version(world, 2)
        old = world.task
        assert old is not None
        await world.start()
        await asyncio.wait([old], timeout=60)
        assert old.done()
        assert type(old.exception()).__name__ == "Superseded"
        assert await world.ended() == pb.RunState.STATE_SUCCEEDED
        world.check()

    lived(World(settings_of(batch_size=5, epochs=3, checkpoint_steps=2)), script)
