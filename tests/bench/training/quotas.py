"""Takes a part of a core away from a process: by a control group (Linux, version 1 or 2, as root), or by stopping it
for a part of every period."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

__all__ = ["Quota", "quota", "way"]

ONE: Final = Path("/sys/fs/cgroup/cpu")
TWO: Final = Path("/sys/fs/cgroup")
PERIOD_US: Final = 10_000
"""Short, so that a share of some milliseconds does not run at full speed within one period."""


class Quota(Protocol):
    def part(self, cores: float) -> None:
        """From now on the process gets so much of a core."""

    def holds(self, pid: int) -> None:
        """From now on this process, with all its threads, is the one that is held."""


class Group:
    """A control group."""

    def __init__(self, name: str) -> None:
        self._path = (ONE if ONE.is_dir() else TWO) / name
        self._path.mkdir(exist_ok=True)

    def part(self, cores: float) -> None:
        quota = str(int(cores * PERIOD_US))
        if ONE.is_dir():
            (self._path / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (self._path / "cpu.cfs_quota_us").write_text(quota)
        else:
            (self._path / "cpu.max").write_text(f"{quota} {PERIOD_US}")

    def holds(self, pid: int) -> None:
        (self._path / "cgroup.procs").write_text(str(pid))

    def close(self) -> None:
        """Its processes go back to where they may do as they like."""
        for pid in (self._path / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (self._path.parent / "cgroup.procs").write_text(pid)
        with contextlib.suppress(OSError):
            self._path.rmdir()


class Turns:
    """Stops and continues the process, so that it runs for a part of every period."""

    def __init__(self, name: str) -> None:
        self._cores, self._pid = 1.0, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._turn, name=f"quota of {name}", daemon=True)
        self._thread.start()

    def part(self, cores: float) -> None:
        self._cores = cores

    def holds(self, pid: int) -> None:
        self._pid = pid

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _turn(self) -> None:
        period = 2 * PERIOD_US / 1e6
        while not self._over.is_set():
            began, cores = time.perf_counter(), min(self._cores, 1.0)
            with contextlib.suppress(ProcessLookupError):
                if self._pid and cores < 1.0:
                    self._over.wait(period * cores)
                    os.kill(self._pid, signal.SIGSTOP)
                    self._over.wait(max(0.0, began + period - time.perf_counter()))
                    os.kill(self._pid, signal.SIGCONT)
                else:
                    self._over.wait(period)


def way() -> str:
    """How processes are held here."""
    return "control groups" if _groups() else "stop and continue"


@contextlib.contextmanager
def quota(name: str, cores: float) -> Iterator[Quota]:
    held: Group | Turns = Group(f"encephalon-bench-{os.getpid()}-{name}") if _groups() else Turns(name)
    try:
        held.part(cores)
        yield held
    finally:
        held.close()


def _groups() -> bool:
    probe = (ONE if ONE.is_dir() else TWO) / f"encephalon-probe-{os.getpid()}"
    try:
        probe.mkdir()
        there = (probe / ("cpu.cfs_quota_us" if ONE.is_dir() else "cpu.max")).exists()
        probe.rmdir()
    except OSError:
        return False
    return there
