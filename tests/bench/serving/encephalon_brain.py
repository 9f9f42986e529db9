"""Encephalon itself, started by its own command: colocated (in one process) and distributed (a process per region)."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import Literal

import yaml
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.bench.serving.processes import channel_ready, free_port, server
from tests.bench.serving.system import Endpoint
from tests.bench.serving.workload import BRAIN, INPUTS, OUTPUT

__all__ = ["Encephalon", "manifest"]

TENSOR = {"datatype": "FP32", "shape": [-1, -1]}
REGION = {"max_batch": 32, "max_delay_ms": 0}  # as Triton's models here: batch what waits, wait for nothing


class Encephalon:
    """`placement` is what the command is told; every pathway is required, as every step of an ensemble is."""

    def __init__(self, placement: Literal["colocated", "distributed"]) -> None:
        self.name = placement
        self.title = f"Encephalon {placement}"

    def prepare(self) -> str:
        try:
            return f"encephalon {installed('encephalon')}"
        except PackageNotFoundError:  # run from a source tree on the path
            return "encephalon (source tree)"

    @contextmanager
    def running(self) -> Iterator[Endpoint]:
        address = f"127.0.0.1:{free_port()}"
        with tempfile.TemporaryDirectory(prefix="bench-enc-") as name:
            folder = Path(name)
            brain = folder / "pair.yaml"
            brain.write_text(yaml.safe_dump(manifest(), sort_keys=False))
            command = [sys.executable, "-m", "encephalon.cli", "up", brain, f"--{self.name}", "--listen", address]
            with server([*command, "--state-dir", folder / "state"], folder / "log", lambda: _ready(address), {}):
                yield Endpoint("oip", address, BRAIN)


def manifest() -> dict[str, object]:
    """The graph as a brain."""
    left, right = INPUTS
    return {
        "brain": BRAIN,
        "description": "Two identities side by side and their sum: what bench-serving measures.",
        "inputs": dict.fromkeys(INPUTS, TENSOR),
        "regions": {
            "seeing": {"network": "diagnostics/001", **REGION},
            "hearing": {"network": "diagnostics/001", **REGION},
            "joining": {"network": "diagnostics/002", **REGION},
        },
        "pathways": [
            {"from": left, "to": "seeing.x"},
            {"from": right, "to": "hearing.x"},
            {"from": "seeing.y", "to": "joining.a"},
            {"from": "hearing.y", "to": "joining.b"},
        ],
        "outputs": {OUTPUT: "joining.y"},
    }


def _ready(address: str) -> bool:
    request = service_pb2.ModelReadyRequest(name=BRAIN)
    return channel_ready(
        lambda channel: service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelReady(request, timeout=2).ready, address
    )
