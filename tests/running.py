"""A whole brain, run by the real command as a user runs it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil

from encephalon.client import Brains, connect
from tests.servers import free_port
from tests.waiting import until

__all__ = ["EXAMPLES", "RunningBrain", "running", "running_brain"]

EXAMPLES = Path(__file__).resolve().parent.parent / "deploy" / "examples"
START_S = 50.0
"""Three cold starts of torch on a busy machine of two cores."""


class RunningBrain:
    """The processes of `encephalon up`, by name and id."""

    def __init__(self, process: subprocess.Popen[bytes], state_dir: Path, address: str) -> None:
        self.process = process
        self.state_dir = state_dir
        self.address = address

    @property
    def output(self) -> str:
        return (self.state_dir / "output").read_text(errors="replace")

    def record(self) -> dict[str, Any] | None:
        """The run file; None before there is one."""
        for path in self.state_dir.rglob("run.json"):
            with contextlib.suppress(OSError, ValueError):
                return dict(json.loads(path.read_text()))
        return None

    def is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"the command ended with {self.process.returncode}:\n{self.output[-4000:]}")
        record = self.record()
        return bool(record and record["ready"])

    def pid(self, name: str) -> int | None:
        """Of the process `name` (coordinator, visual-0, ...) now; None while it waits to be started again."""
        record = self.record() or {"processes": []}
        pids = {entry["name"]: entry["pid"] for entry in record["processes"]}
        pid = pids[name]
        return None if pid is None else int(pid)

    def kill(self, name: str, sign: signal.Signals = signal.SIGKILL) -> int:
        """Sends a signal to the process `name` and returns its id."""
        pid = self.pid(name)
        assert pid is not None, f"{name} is not running"
        os.kill(pid, sign)
        return pid

    def rss(self) -> dict[str, int]:
        """Resident bytes of every process of the brain."""
        record = self.record() or {"processes": []}
        return {
            entry["name"]: int(psutil.Process(entry["pid"]).memory_info().rss)
            for entry in record["processes"]
            if entry["pid"] is not None
        }

    def log(self, name: str) -> str:
        return "".join(path.read_text(errors="replace") for path in self.state_dir.rglob(f"{name}.log"))

    def connect(self) -> contextlib.AbstractAsyncContextManager[Brains]:
        return connect(self.address)

    async def until_replicas(self, count: int, within: float = START_S) -> None:
        """Waits until the coordinator holds `count` replicas that take requests, over all regions."""
        async with self.connect() as brains:
            name = (self.record() or {})["brain"]

            async def all_there() -> bool:
                regions = (await brains.describe(name)).regions
                return (
                    sum(
                        replica.state == "ready" and not replica.ejected
                        for region in regions
                        for replica in region.replicas
                    )
                    == count
                )

            await until(all_there, within, f"{count} replicas are ready")


@contextlib.asynccontextmanager
async def running_brain(manifest: Path | str, *arguments: str) -> AsyncIterator[RunningBrain]:
    """Runs `encephalon up` on a manifest (a path, or its text) until the block ends; the brain answers in it."""
    with tempfile.TemporaryDirectory(prefix="enc-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        path = manifest if isinstance(manifest, Path) else folder / "brain.yaml"
        if isinstance(manifest, str):
            path.write_text(manifest)
        async with running(str(path), folder, *arguments) as brain:
            yield brain


@contextlib.asynccontextmanager
async def running(what: str, folder: Path, *arguments: str) -> AsyncIterator[RunningBrain]:
    """Runs `encephalon up WHAT` with its state in `folder` until the block ends; the brain answers in it."""
    address = f"127.0.0.1:{free_port()}"
    words = [sys.executable, "-m", "encephalon.cli", "up", what, "--listen", address, "--state-dir", str(folder)]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(  # noqa: ASYNC220 -- a fork of milliseconds, and the server outlives no loop
            [*words, *arguments], stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    brain = RunningBrain(process, folder, address)
    try:
        await until(brain.is_ready, within=START_S, what=f"the brain answers ({' '.join(arguments)})")
        yield brain
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(process.wait, 20)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
