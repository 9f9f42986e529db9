"""The processes of a run, which only pretend here: started, watched, started again, stopped in order."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from encephalon.api.training.v1.training_pb2 import RunState
from encephalon.core.errors import AlreadyExists, FailedPrecondition, NotFound
from encephalon.local.training import Runs, TrainingOptions, training
from encephalon.state import open_key_value
from encephalon.training.runs import RunSettings
from tests.unit.local.training.pretending import pretend
from tests.waiting import until


def settings(**values: Any) -> RunSettings:
    return RunSettings(**{"run": "first", "brain": "brain:digits@1", "data": "data_set:d@1", "epochs": 2, **values})


def options(folder: Path, **values: Any) -> TrainingOptions:
    return TrainingOptions(**{"state_dir": folder, "drain_s": 5.0, "stop_s": 20.0, **values})


async def state_of(folder: Path, run: str = "first") -> RunState:
    async with open_key_value(options(folder).state_url) as store:
        return (await Runs(store, "default").state(run))[0]


@pytest.mark.slow
async def test_a_run_is_watched_to_its_end_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch)
    async with training(settings(workers=2, shards=1), options(tmp_path)) as run:
        assert set(run.processes) == {"control-node", "shard-0", "worker-0", "worker-1"}
        told = [status async for status in run.watch()]
        pids = [pid for pid in run.processes.values() if pid is not None]
        state = await run.wait()
    assert told[-1].state == state.state == RunState.STATE_SUCCEEDED
    assert [status.version for status in told] == sorted(status.version for status in told)
    assert told[-1].version == 10
    assert dict(state.made)["brain"] == "brain:digits@2"
    assert pids
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert (tmp_path / "runs" / "first" / "logs" / "worker-1.log").is_file()


@pytest.mark.slow
async def test_who_is_killed_comes_back_and_the_run_is_watched_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, controller="wait")
    async with training(settings(workers=1, shards=1), options(tmp_path)) as run:
        watching = run.watch()
        assert (await anext(watching)).run == "first"
        before = dict(run.processes)
        for pid in before.values():
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        await until(lambda: all(run.processes[name] not in (None, before[name]) for name in before), 20)
        while (await anext(watching)).version < 10:
            pass
        with pytest.raises(FailedPrecondition, match="run 'first' is running"):
            async with training(settings(), options(tmp_path), resume=True):
                pass
        stopped = asyncio.create_task(run.stop())
        ends = [status.state async for status in watching]
        assert ends[-1:] == [RunState.STATE_STOPPED]
        assert (await stopped).state == RunState.STATE_STOPPED


@pytest.mark.slow
async def test_leaving_the_block_stops_the_run_which_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, controller="wait")
    async with training(settings(), options(tmp_path)) as run:
        await run.address()
        await until(lambda: run._crew.answered)
    assert (await state_of(tmp_path)).state == RunState.STATE_STOPPED
    with pytest.raises(AlreadyExists, match="--resume first"):
        async with training(settings(), options(tmp_path)):
            pass
    pretend(monkeypatch)
    async with training(settings(epochs=3), options(tmp_path), resume=True) as run:
        assert (await run.wait()).samples == 300


@pytest.mark.slow
async def test_killing_is_at_once_and_leaves_a_run_that_was_broken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, controller="wait")
    async with training(settings(), options(tmp_path)) as run:
        await run.address()
        run.kill()
        with pytest.raises(FailedPrecondition, match="run 'first' was broken off: it was killed"):
            await run.wait()
    assert (await state_of(tmp_path)).state == RunState.STATE_UNSPECIFIED


@pytest.mark.slow
async def test_a_control_node_that_is_refused_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, controller="refuse")
    async with training(settings(), options(tmp_path)) as run:
        assert [status async for status in run.watch()] == []
        with pytest.raises(FailedPrecondition, match="the control node cannot run: this controller has another world"):
            await run.wait()


async def test_runs_are_named_and_unknown_ones_suggested(tmp_path: Path) -> None:
    async with open_key_value(options(tmp_path).state_url) as store:
        runs = Runs(store, "default")
        with pytest.raises(NotFound, match="there are none yet"):
            await runs.settings("first")
        assert await runs.free_name("team/digits") == "team-digits-1"
        for name in ("digits-1", "digits-9", "digits-x", "other-12"):
            await runs.begin(settings(run=name))
        assert await runs.free_name("digits") == "digits-10"
        assert await runs.names() == ["digits-1", "digits-9", "digits-x", "other-12"]
        assert (await runs.settings("digits-9")).run == "digits-9"
        with pytest.raises(NotFound, match="did you mean 'other-12'"):
            await runs.settings("other-1")
