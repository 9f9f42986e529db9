from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from encephalon.local.backoff import Backoff
from encephalon.local.process import Command, Process
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[3]
QUICK = Backoff(first_s=0.01, longest_s=0.02)


@asynccontextmanager
async def kept(folder: Path, order: str, backoff: Backoff = QUICK) -> AsyncIterator[Process]:
    command = Command(
        name="patient",
        module="tests.unit.local.patient",
        arguments=(order,),
        log=folder / "patient.log",
        environment={"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'services'}"},
    )
    process = Process(command, lambda: None, backoff)
    keeper = asyncio.create_task(process.keep())
    try:
        yield process
    finally:
        process.kill()
        await keeper


def runs(process: Process) -> bool:
    return process.pid is not None and process.last_words() == "running"


async def test_a_killed_process_is_started_again(tmp_path: Path) -> None:
    async with kept(tmp_path, "obey") as process:
        await until(lambda: runs(process))
        first = process.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: process.pid not in (None, first))
        assert process.restarts == 1
        assert process.exit_code == -signal.SIGKILL


async def test_stop_asks_first(tmp_path: Path) -> None:
    async with kept(tmp_path, "obey") as process:
        await until(lambda: runs(process))
        await process.stop(grace_s=10.0)
        assert process.pid is None
        await until(lambda: process.state == "stopped")
        assert process.exit_code == 0
        await process.stop(grace_s=10.0)


async def test_stop_kills_what_does_not_listen(tmp_path: Path) -> None:
    async with kept(tmp_path, "stubborn") as process:
        await until(lambda: runs(process))
        await process.stop(grace_s=0.1)
        await until(lambda: process.state == "stopped")
        assert process.exit_code == -signal.SIGKILL


async def test_a_process_that_cannot_run_says_why_and_is_tried_again_ever_more_seldom(tmp_path: Path) -> None:
    async with kept(tmp_path, "fail", Backoff(first_s=0.01, longest_s=3600.0)) as process:
        await until(lambda: process.restarts >= 2, within=20.0)
        await until(lambda: process.state == "restarting")
        assert process.exit_code == 1
        assert process.last_words() == "there is no cake"


async def test_stop_ends_the_wait_before_the_next_start(tmp_path: Path) -> None:
    async with kept(tmp_path, "fail", Backoff(first_s=3600.0, longest_s=3600.0)) as process:
        await until(lambda: process.state == "restarting")
        await process.stop(grace_s=10.0)
        await until(lambda: process.state == "stopped")


async def test_a_child_ends_with_its_killed_parent() -> None:
    code = (
        "import os, subprocess, sys;"
        "child = subprocess.Popen([sys.executable, '-m', 'encephalon.local.child', str(os.getpid()),"
        " 'tests.unit.local.patient', 'stubborn'], start_new_session=True, stdout=subprocess.PIPE);"
        "child.stdout.readline(); print(child.pid, flush=True); child.wait()"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'services'}"}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) as parent:  # noqa: ASYNC220
        assert parent.stdout is not None
        grandchild = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    await until(lambda: not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE)
