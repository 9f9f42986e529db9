"""Starts a server as a process group of its own, waits until it answers, and ends it with everything it started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import psutil

__all__ = ["ALLOCATOR", "ServerFailed", "channel_ready", "free_port", "server"]

START_SECONDS = 120.0
STOP_SECONDS = 20.0

# glibc keeps large blocks instead of giving each back to the kernel. Encephalon sets this for its own processes; every
# server here and the client get it, because it makes them all faster at 1 MiB (Triton by a third).
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "4294967296"}


class ServerFailed(RuntimeError):
    """A server under test did not start; carries the end of what it wrote."""


def free_port() -> int:
    """A loopback port that was free a moment ago: for servers that cannot be told to choose one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def channel_ready(call: Callable[[grpc.Channel], object], address: str) -> bool:
    """Tells whether `call` succeeds on a fresh channel to `address`."""
    with grpc.insecure_channel(address) as channel, suppress(grpc.RpcError):
        return bool(call(channel))
    return False


@contextmanager
def server(
    command: Sequence[object], log: Path, ready: Callable[[], bool], environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs `command` until the block ends, its output in `log`; ServerFailed when it is not ready in time."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **ALLOCATOR, **environment},
            start_new_session=True,
        )
    try:
        _await_ready(process, ready, log)
        yield process
    finally:
        _stop(process)


def _await_ready(process: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            ended = "still silent" if process.returncode is None else f"ended with {process.returncode}"
            tail = log.read_text(errors="replace")[-3000:]
            raise ServerFailed(f"{process.args!r} did not become ready ({ended}); the end of {log}:\n{tail}")
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.2)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the group, then SIGKILL to whatever of its family is left, also to children that left the group."""
    family = _family(process.pid)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    _, alive = psutil.wait_procs(family, timeout=STOP_SECONDS)
    for left in alive:
        with suppress(psutil.NoSuchProcess):
            left.kill()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _family(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
