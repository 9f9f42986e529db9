"""A brain on one machine: it is kept running, and nothing of it is left when it ends, however it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest

from encephalon import Retryable
from encephalon.state import open_key_value
from tests.running import EXAMPLES, RunningBrain, running_brain
from tests.waiting import until

PAIR = EXAMPLES / "pair.yaml"
NAMES = ["coordinator", "first-0", "second-0", "join-0"]
MARK = "ENCEPHALON_TEST_MARK"


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> str:
    """A word in the environment of whatever this test starts, so that no descendant can hide."""
    word = uuid.uuid4().hex
    monkeypatch.setenv(MARK, word)
    return word


def marked(word: str) -> list[psutil.Process]:
    """The living processes with the mark, this one aside."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found += [process] * (process.environ().get(MARK) == word)
        except psutil.Error:
            continue
    return found


async def encephalon(*arguments: object) -> str:
    """Runs the command, which must succeed, and returns what it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "encephalon.cli", *map(str, arguments)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    printed, said = await process.communicate()
    assert process.returncode == 0, said.decode()
    return printed.decode()


async def adds(brain: RunningBrain) -> None:
    async with brain.connect() as brains:
        answer = await brains.infer("pair", left=[1.0, 2.0], right=[3.0, 4.0])
    np.testing.assert_array_equal(answer["sum"], [4.0, 6.0])


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_leaves_no_process_behind(mark: str, sign: signal.Signals) -> None:
    async with running_brain(PAIR) as brain:
        await adds(brain)
        assert len(marked(mark)) == 1 + len(NAMES)
        brain.process.send_signal(sign)
        assert await asyncio.to_thread(brain.process.wait, 20) == 0
        assert marked(mark) == []
        assert brain.record() is None
        async with open_key_value(f"sqlite://{brain.state_dir / 'state.db'}") as store:
            assert [entry.key async for entry in store.list("/")] == []
        assert "Traceback" not in brain.output


async def test_ctrl_c_while_it_starts_leaves_no_process_behind(mark: str, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "encephalon.cli", "up", str(PAIR), "--listen", "127.0.0.1:0"]
    process = await asyncio.create_subprocess_exec(*words, "--state-dir", str(tmp_path), stderr=subprocess.PIPE)
    await until(lambda: len(marked(mark)) == 1 + len(NAMES), within=20.0)
    process.send_signal(signal.SIGINT)
    _, said = await process.communicate()
    assert process.returncode == 130
    assert b"Traceback" not in said
    assert marked(mark) == []


async def test_a_killed_supervisor_leaves_no_process_behind(mark: str) -> None:
    async with running_brain(PAIR) as brain:
        assert len(marked(mark)) == 1 + len(NAMES)
        brain.process.kill()
        await until(lambda: marked(mark) == [], within=5.0)
        assert (await encephalon("status", "--state-dir", brain.state_dir)).startswith("No brain runs here")


@pytest.mark.parametrize("name", ["first-0", "coordinator"])
async def test_a_killed_process_is_started_again(name: str) -> None:
    async with running_brain(PAIR) as brain:
        await adds(brain)
        killed = brain.kill(name)
        await until(lambda: brain.pid(name) not in (None, killed), within=10.0, what=f"{name} has a new process")
        await until(lambda: adds_again(brain), within=20.0, what="the brain answers again")
        restarts = {entry["name"]: entry["restarts"] for entry in (brain.record() or {})["processes"]}
        assert restarts == {**dict.fromkeys(NAMES, 0), name: 1}


async def adds_again(brain: RunningBrain) -> bool:
    try:
        await adds(brain)
    except Retryable:
        return False
    return True


async def test_status_shows_regions_and_down_stops_them(mark: str) -> None:
    async with running_brain(PAIR, "--replicas", "second=2") as brain:
        await adds(brain)
        shown = json.loads(await encephalon("status", "--json", "--state-dir", brain.state_dir))["brains"][0]
        assert shown["brain"] == "pair"
        assert shown["address"] == brain.address
        assert {region["name"]: len(region["replicas"]) for region in shown["regions"]} == {
            "first": 1,
            "second": 2,
            "join": 1,
        }
        assert sum(region["requests"] for region in shown["regions"]) == 3
        table = await encephalon("status", "--state-dir", brain.state_dir)
        for word in ("first", "second", "join", "coordinator", "closed", str(brain.pid("second-1"))):
            assert word in table
        assert "has stopped" in await encephalon("down", "pair", "--state-dir", brain.state_dir)
        assert marked(mark) == []
        assert "No brain runs here" in await encephalon("down", "--state-dir", brain.state_dir)


async def test_infer_reads_files_and_prints_json(tmp_path: Path) -> None:
    np.save(tmp_path / "left.npy", np.array([[0.1, 1], [2, 3]], np.float32))
    np.save(tmp_path / "right.npy", np.zeros((2, 2), np.float32))
    files: Sequence[object] = ("--input", f"left={tmp_path / 'left.npy'}", "--input", f"right={tmp_path / 'right.npy'}")
    async with running_brain(PAIR, "--colocated") as brain:
        assert [entry["name"] for entry in (brain.record() or {})["processes"]] == ["coordinator"]
        for where in (("--state-dir", brain.state_dir), ("--address", brain.address)):
            answer = json.loads(await encephalon("infer", "pair", *files, *where))
            assert answer["outputs"] == {"sum": [[0.1, 1.0], [2.0, 3.0]]}
            assert answer["missing"] == []
            assert set(answer["region_ms"]) == {"first", "second", "join"}


async def test_a_detached_brain_stays_until_down(mark: str, tmp_path: Path) -> None:
    up = ("up", PAIR, "--listen", "127.0.0.1:0", "--state-dir", tmp_path, "--detach", "--colocated")
    assert "answers on 127.0.0.1:" in await encephalon(*up)
    assert len(marked(mark)) == 2
    await encephalon("down", "--state-dir", tmp_path)
    assert marked(mark) == []


async def test_one_brain_runs_once_per_state_folder() -> None:
    async with running_brain(PAIR, "--colocated") as brain:
        arguments = ("up", str(PAIR), "--listen", "127.0.0.1:0", "--state-dir", str(brain.state_dir))
        second = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "encephalon.cli", *arguments), stderr=subprocess.PIPE
        )
        _, said = await second.communicate()
        assert second.returncode == 1
        assert f"runs already as process {brain.process.pid} on {brain.address}" in said.decode()
        await adds(brain)


async def test_a_region_may_live_with_the_coordinator_and_the_others_apart() -> None:
    text = PAIR.read_text().replace("join: {network", "join: {placement: colocated, network")
    async with running_brain(text) as brain:
        assert [entry["name"] for entry in (brain.record() or {})["processes"]] == [
            "coordinator",
            "first-0",
            "second-0",
        ]
        await adds(brain)
