"""Starts the workers of a rival and collects what they measured."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tests.bench.serving.environments import environment
from tests.bench.training.workload import Steps

__all__ = ["DDP", "RIVALS", "Failed", "Rival"]

REPOSITORY = Path(__file__).resolve().parents[4]
PATIENCE_S = 120.0
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "FLWR_TELEMETRY_ENABLED": "0"}


class Failed(RuntimeError):
    """A rival could not be installed or did not do its steps; says why."""


@dataclass(frozen=True, slots=True)
class Rival:
    """`package` is installed into an environment of its own, beside the torch that we have; "" needs none.
    `worker_steps`: how many of its steps are enough, for some need seconds for each."""

    title: str
    module: str
    package: str = ""
    worker_steps: int = 30

    def interpreter(self) -> Path:
        """Installs it first where it is missing (minutes, once)."""
        if not self.package:
            return Path(sys.executable)
        torch = f"torch=={version('torch').partition('+')[0]}"
        name = f"training-{self.package.partition('=')[0]}"
        try:
            return environment(name, self.package, torch)
        except subprocess.SubprocessError as error:
            raise Failed(f"{self.title} cannot be installed here: {error}") from error

    def steps(self, workers: int, most: int) -> Steps:
        with tempfile.TemporaryDirectory(prefix="enc-bench-") as folder:
            count = min(most, self.worker_steps)
            words = ["--workers", str(workers), "--steps", str(count), "--rendezvous", f"{folder}/rendezvous"]
            command = [str(self.interpreter()), "-W", "ignore", "-m", f"tests.bench.training.rivals.{self.module}"]
            logs = [Path(folder) / f"{rank}.log" for rank in range(workers)]
            started = []
            try:
                for rank, log in enumerate(logs):
                    started.append(_started([*command, "--rank", str(rank), *words], log))
                return Steps.together([self._taken(*each) for each in zip(started, logs, strict=True)])
            finally:
                for process in started:
                    _end(process)

    def _taken(self, process: subprocess.Popen[str], log: Path) -> Steps:
        try:
            output, _ = process.communicate(timeout=PATIENCE_S)
            return Steps.read(output)
        except (subprocess.TimeoutExpired, ValueError, IndexError) as error:
            said = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise Failed(f"{self.title} did not do its steps ({process.returncode}): {' '.join(said)}") from error


def _started(command: list[str], log: Path) -> subprocess.Popen[str]:
    with log.open("wb") as errors:
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=REPOSITORY,
            env={**os.environ, **ENVIRONMENT},
            start_new_session=True,
        )


def _end(process: subprocess.Popen[str]) -> None:
    """With everything that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


DDP = Rival("PyTorch DDP, gloo", "ddp")
RIVALS = (
    DDP,
    Rival("hivemind", "hivemind_peer", "hivemind==1.1.12", 8),
    Rival("Flower", "flower", "flwr==1.42.0", 3),
)
