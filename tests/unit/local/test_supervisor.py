"""Which processes run while the versions of a brain need now these and now those."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from encephalon.local.options import Options
from encephalon.local.process import Command, Process
from encephalon.local.runfile import RunFile
from encephalon.local.supervisor import Supervisor
from tests.unit.local.test_process import ROOT
from tests.waiting import until


def command(folder: Path, name: str, order: str) -> Command:
    return Command(
        name=name,
        module="tests.unit.local.patient",
        arguments=(order,),
        log=folder / f"{name}.log",
        region=name.partition("-")[0] if "-" in name else "",
        environment={"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'services'}"},
    )


def named(supervisor: Supervisor, name: str) -> Process | None:
    return next((process for process in supervisor.processes if process.command.name == name), None)


async def test_a_process_that_is_needed_again_waits_for_the_one_that_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have one name, one socket and one log."""
    monkeypatch.setattr("encephalon.local.supervisor.STOP_AFTER_S", 0.01)
    record = RunFile("both", os.getpid(), 0.0, "127.0.0.1:9", "brain.yaml", "here")
    supervisor = Supervisor(record, tmp_path, [command(tmp_path, "coordinator", "obey")], Options(drain_s=2.0))
    supervisor.start()
    first = command(tmp_path, "first-0", "stubborn")
    try:
        supervisor.need([first])
        process = named(supervisor, "first-0")
        assert process is not None
        await until(lambda: process.pid and process.last_words() == "running", 20)
        old = process.pid
        assert old is not None
        supervisor.need([])
        await until(lambda: named(supervisor, "first-0") is None)
        supervisor.need([first])
        assert named(supervisor, "first-0") is None
        assert psutil.pid_exists(old)
        await until(lambda: (again := named(supervisor, "first-0")) and again.pid, 20)
        assert not psutil.pid_exists(old)
        supervisor.need([])
        await until(lambda: named(supervisor, "first-0") is None)
    finally:
        supervisor.kill()
        await supervisor.stop(5.0)
    assert not any("stubborn" in child.cmdline() for child in psutil.Process().children())
