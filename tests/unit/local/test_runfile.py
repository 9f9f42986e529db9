from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from encephalon.core.errors import FailedPrecondition
from encephalon.local import Folders, ProcessEntry, RunFile, running_brains, stop
from encephalon.local.runfile import started_at

ENTRY = ProcessEntry("visual-0", "visual", 7, "running", 1, "/logs/visual-0.log", "/run/1.sock")


def record(pid: int, started: float, brain: str = "digits") -> RunFile:
    return RunFile(brain, pid, started, "127.0.0.1:9000", "/digits.yaml", "local", True, (ENTRY,))


def test_a_record_survives_the_way_to_disk(tmp_path: Path) -> None:
    written = record(os.getpid(), started_at(os.getpid()) or 0.0)
    written.write(tmp_path)
    assert RunFile.read(tmp_path) == written
    assert written.alive


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"processes": [{"odd": 1}]}'])
def test_a_damaged_record_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    assert RunFile.read(tmp_path) is None


def test_a_pid_that_belongs_to_a_stranger_now_is_not_our_supervisor() -> None:
    started = started_at(os.getpid())
    assert started is not None
    assert not record(os.getpid(), started - 100.0).alive


async def test_stop_leaves_a_stranger_alone() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:  # noqa: ASYNC220
        await stop(record(stranger.pid, 1.0), within_s=5.0)
        assert stranger.poll() is None
        stranger.communicate(b"\n")
    assert stranger.returncode == 0


async def test_a_supervisor_that_does_not_stop_is_named() -> None:
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as stubborn:  # noqa: ASYNC220
        assert stubborn.stdout is not None
        stubborn.stdout.readline()
        with pytest.raises(FailedPrecondition, match=f"kill -9 {stubborn.pid}"):
            await stop(record(stubborn.pid, started_at(stubborn.pid) or 0.0), within_s=0.2)
        stubborn.communicate(b"\n")


def test_records_of_dead_supervisors_are_tidied_away(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    for brain, started in (("dead", 1.0), ("living", started_at(os.getpid()) or 0.0)):
        folders.prepare(brain)
        record(os.getpid(), started, brain).write(folders.brain(brain))
    assert [found.brain for found in running_brains(folders)] == ["living"]
    assert RunFile.read(folders.brain("dead")) is None
