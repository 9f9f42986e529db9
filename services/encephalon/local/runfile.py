"""The record of a running brain, from which `status` and `down` know what runs, whoever started it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from encephalon.core.errors import FailedPrecondition
from encephalon.local.folders import Folders

__all__ = ["ProcessEntry", "RunFile", "running_brains", "started_at", "stop"]

NAME = "run.json"
SAME_START_S = 0.05  # the kernel counts a process's start in ticks of 10 ms
POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class ProcessEntry:
    """One process of a brain; `pid` is None while it waits to be started again."""

    name: str
    region: str
    pid: int | None
    state: str
    restarts: int
    log: str
    socket: str


@dataclass(frozen=True, slots=True)
class RunFile:
    """`pid` and `started` (seconds since the epoch) name the supervisor: a pid alone may belong to a stranger.

    `follows` is the brain of the library that it follows (empty for a manifest), `library` that library's namespace,
    `stores` where it is: empty for the state folder, else the addresses without their secrets.
    """

    brain: str
    pid: int
    started: float
    address: str
    manifest: str
    namespace: str
    ready: bool = False
    processes: tuple[ProcessEntry, ...] = ()
    follows: str = ""
    library: str = ""
    stores: str = ""

    def write(self, folder: Path) -> None:
        """Replaces the record in one step, so that a reader sees the old one or the new one."""
        temporary = folder / f"{NAME}.{os.getpid()}"
        temporary.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        temporary.replace(folder / NAME)

    def updated(self, **changes: Any) -> RunFile:
        return replace(self, **changes)

    @property
    def alive(self) -> bool:
        """True while the supervisor that wrote this record runs."""
        started = started_at(self.pid)
        return started is not None and abs(started - self.started) < SAME_START_S

    @classmethod
    def read(cls, folder: Path) -> RunFile | None:
        """None when there is no record, or none that can be read."""
        try:
            fields: Mapping[str, Any] = json.loads((folder / NAME).read_text(encoding="utf-8"))
            processes = tuple(ProcessEntry(**entry) for entry in fields["processes"])
            return cls(**{**fields, "processes": processes})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    @staticmethod
    def remove(folder: Path) -> None:
        (folder / NAME).unlink(missing_ok=True)


def started_at(pid: int) -> float | None:
    """When the process started, seconds since the epoch; None when there is no such process, or only its zombie."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def running_brains(folders: Folders) -> list[RunFile]:
    """The records of brains whose supervisor is alive, by name; the records of dead ones are removed."""
    found = []
    for folder in sorted(folders.brains.glob("*/")):
        record = RunFile.read(folder)
        if record is None:
            continue
        if record.alive:
            found.append(record)
        else:
            RunFile.remove(folder)
    return found


async def stop(record: RunFile, within_s: float) -> None:
    """Tells a supervisor to stop its brain and waits until it has; FailedPrecondition when it does not."""
    if record.alive:
        with suppress(ProcessLookupError):
            os.kill(record.pid, signal.SIGTERM)
    deadline = asyncio.get_running_loop().time() + within_s
    while record.alive:
        if asyncio.get_running_loop().time() > deadline:
            raise FailedPrecondition(
                f"brain '{record.brain}' (process {record.pid}) did not stop within {within_s:.0f} s; "
                f"end it with: kill -9 {record.pid}"
            )
        await asyncio.sleep(POLL_S)
