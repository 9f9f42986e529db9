"""NVIDIA Triton: an ensemble of three models of its Python backend, by the server in the wheel `nvidia-pytriton`."""

from __future__ import annotations

import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.bench.serving.environments import CACHE, environment, site_packages, version
from tests.bench.serving.processes import channel_ready, free_port, server
from tests.bench.serving.system import Endpoint
from tests.bench.serving.workload import BRAIN, INPUTS, OUTPUT

__all__ = ["Triton"]

MODELS = Path(__file__).parent / "triton_models"
INSTANCES = 1
MAX_BATCH = 32  # as the brain's regions have by default


class Triton:
    """The reference: every ratio is taken to its figures."""

    name = "triton"
    title = "Triton ensemble"

    def __init__(self) -> None:
        self._python = CACHE / "triton" / "bin" / "python"

    def prepare(self) -> str:
        self._python = environment("triton", "nvidia-pytriton==0.7.0")
        stub = self._server / "python_backend_stubs" / _python_version() / "triton_python_backend_stub"
        shutil.copy2(stub, self._server / "backends" / "python" / stub.name)
        return f"nvidia-pytriton {version(self._python, 'nvidia-pytriton')}"

    @contextmanager
    def running(self) -> Iterator[Endpoint]:
        port = free_port()
        address = f"127.0.0.1:{port}"
        with tempfile.TemporaryDirectory(prefix="bench-triton-") as folder:
            repository = write_repository(Path(folder) / "models")
            log = Path(folder) / "log"
            with server(self._command(repository, port), log, lambda: _ready(address), self._environment()):
                yield Endpoint("oip", address, BRAIN)

    @property
    def _server(self) -> Path:
        return site_packages(self._python) / "pytriton" / "tritonserver"

    def _command(self, repository: Path, port: int) -> list[object]:
        """Only gRPC on loopback; no metrics collector and no HTTP server beside it, which would only cost it time."""
        return [
            self._server / "bin" / "tritonserver",
            f"--model-repository={repository}",
            f"--backend-directory={self._server / 'backends'}",
            "--grpc-address=127.0.0.1",
            f"--grpc-port={port}",
            "--allow-http=false",
            "--allow-metrics=false",
            "--log-info=false",
        ]

    def _environment(self) -> Mapping[str, str]:
        """Libraries of the wheel (where this and other releases put them), and libpython for the backend's stub."""
        wheel = site_packages(self._python) / "nvidia_pytriton.libs"
        folders = (self._server / "external_libs", self._server / "lib", wheel, sysconfig.get_config_var("LIBDIR"))
        return {
            "LD_LIBRARY_PATH": ":".join(str(folder) for folder in folders),
            "PATH": f"{self._python.parent}:/usr/bin:/bin",
        }


def write_repository(folder: Path) -> Path:
    """Writes the models in Triton's layout and returns the folder."""
    _write(folder, "left_identity", _model("left_identity", ("x",), ("y",)), "identity_model.py")
    _write(folder, "right_identity", _model("right_identity", ("x",), ("y",)), "identity_model.py")
    _write(folder, "join", _model("join", ("a", "b"), ("y",)), "join_model.py")
    _write(folder, BRAIN, _ensemble())
    return folder


def _write(folder: Path, name: str, config: str, code: str | None = None) -> None:
    (folder / name / "1").mkdir(parents=True)
    (folder / name / "config.pbtxt").write_text(config)
    if code:
        shutil.copy(MODELS / code, folder / name / "1" / "model.py")


def _tensors(kind: str, names: tuple[str, ...]) -> str:
    return "\n".join(f'{kind} [{{ name: "{name}" data_type: TYPE_FP32 dims: [ -1 ] }}]' for name in names)


def _model(name: str, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> str:
    """Batches what waits, without a delay; one process per model, because more did not help on few cores."""
    return f"""
name: "{name}"
backend: "python"
max_batch_size: {MAX_BATCH}
dynamic_batching {{ }}
instance_group [{{ count: {INSTANCES} kind: KIND_CPU }}]
{_tensors("input", inputs)}
{_tensors("output", outputs)}
"""


def _ensemble() -> str:
    left, right = INPUTS
    steps = (
        _step("left_identity", {"x": left}, {"y": "seen"}),
        _step("right_identity", {"x": right}, {"y": "heard"}),
        _step("join", {"a": "seen", "b": "heard"}, {"y": OUTPUT}),
    )
    return f"""
name: "{BRAIN}"
platform: "ensemble"
max_batch_size: {MAX_BATCH}
{_tensors("input", INPUTS)}
{_tensors("output", (OUTPUT,))}
ensemble_scheduling {{ step [ {", ".join(steps)} ] }}
"""


def _step(model: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> str:
    maps = [f'input_map {{ key: "{key}" value: "{value}" }}' for key, value in inputs.items()]
    maps += [f'output_map {{ key: "{key}" value: "{value}" }}' for key, value in outputs.items()]
    return f'{{ model_name: "{model}" model_version: -1 {" ".join(maps)} }}'


def _ready(address: str) -> bool:
    request = service_pb2.ModelReadyRequest(name=BRAIN)
    return channel_ready(
        lambda channel: service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelReady(request, timeout=2).ready, address
    )


def _python_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"
