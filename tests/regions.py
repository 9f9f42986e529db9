"""A region in a process of its own, started as a user starts it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from encephalon.core.inference import InferenceClient
from encephalon.core.wire import InferRequest, InferResponse, Tensor
from tests.waiting import until

__all__ = ["RegionProcess", "infer", "manifest", "region_process", "request", "run_region"]

START_S = 30.0
"""A cold start of torch on a busy machine."""


def manifest(network: str = "diagnostics/001", **more: Any) -> str:
    """A brain of one region named `echo`, whose input is `x` and whose output is `y`."""
    region = json.dumps({"network": network, **more})
    return (
        "brain: test\n"
        "inputs: {x: {datatype: FP32, shape: [-1, -1]}}\n"
        f"regions: {{echo: {region}}}\n"
        "pathways: [{from: x, to: echo.x}]\n"
        "outputs: {y: echo.y}\n"
    )


class RegionProcess:
    """Its addresses are those that it says it listens on."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.address = ""
        self.metrics_port = 0

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    @property
    def rss(self) -> int:
        """Resident bytes."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The log, decoded."""
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]

    def is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"the region ended with {self.process.returncode}:\n{self.log[-4000:]}")
        for line in self.lines:
            if line["event"] == "the region is ready":
                self.address, self.metrics_port = line["addresses"][0], line["metrics_port"]
                return True
        return False

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over all children with these labels."""
        text = await asyncio.to_thread(scrape, self.metrics_port)
        total = 0.0
        for line in text.splitlines():
            key, _, number = line.rpartition(" ")
            if key.partition("{")[0] == name and all(f'{label}="{value}"' in key for label, value in labels.items()):
                total += float(number)
        return total

    async def in_flight(self) -> float:
        """Unary calls that are being answered."""
        return await self.metric("encephalon_rpc_in_flight", method="inference.GRPCInferenceService/ModelInfer")

    async def waiting(self) -> float:
        """Messages in the mailbox."""
        return await self.metric("encephalon_region_mailbox_messages")

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def ended(self, within: float = 10.0) -> int:
        """The exit code."""
        await until(lambda: self.process.poll() is not None, within, "the region ends")
        return int(self.process.returncode)

    def client(self) -> InferenceClient:
        return InferenceClient(self.address)


@contextlib.asynccontextmanager
async def region_process(
    text: str, *arguments: str, region: str = "echo", environment: Mapping[str, str] | None = None
) -> AsyncIterator[RegionProcess]:
    """Runs `region` of the manifest `text`, ready to answer."""
    with tempfile.TemporaryDirectory(prefix="enc-") as name:
        folder = Path(name)
        (folder / "brain.yaml").write_text(text)
        command = words(folder / "brain.yaml", region, ["--metrics-port", "0", "--threads", "1", *arguments])
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(  # noqa: ASYNC220 - starting one takes a millisecond
                command, stdout=log, stderr=log, env={**os.environ, **(environment or {})}
            )
        running = RegionProcess(process, folder)
        try:
            await until(running.is_ready, within=START_S, what="the region is ready")
            yield running
        finally:
            process.kill()
            await asyncio.to_thread(process.wait)


def run_region(brain: Path, *arguments: str, region: str = "echo") -> tuple[int, str]:
    """Exit code and stderr of a region that is not expected to come up."""
    done = subprocess.run(words(brain, region, arguments), capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stderr


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def words(brain: Path, region: str, arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "encephalon.region", "--brain", str(brain), "--region", region, *arguments]


def request(value: float = 1.0, rows: int = 1, width: int = 4, **more: Any) -> InferRequest:
    return InferRequest("echo", inputs=[Tensor.of("x", np.full((rows, width), value, np.float32))], **more)


async def infer(client: InferenceClient, value: float = 1.0, timeout_s: float = 10.0, **more: Any) -> InferResponse:
    return await client.infer(request(value, **more), timeout_s)
