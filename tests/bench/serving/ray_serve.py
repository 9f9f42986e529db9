"""Ray Serve: deployments composed with handles behind its gRPC proxy, with its settings for throughput."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from google.protobuf.wrappers_pb2 import BytesValue

from tests.bench.serving.environments import CACHE, environment, version
from tests.bench.serving.processes import channel_ready, free_port, server
from tests.bench.serving.system import Endpoint

__all__ = ["RayServe"]

APP = Path(__file__).with_name("ray_app.py")
METHOD = "/bench.Pair/Infer"
APPLICATION = [("application", "pair")]


class RayServe:
    """Asked with raw bytes in a generic message, the quickest that its proxy takes."""

    name = "ray"
    title = "Ray Serve"

    def __init__(self) -> None:
        self._python = CACHE / "ray" / "bin" / "python"

    def prepare(self) -> str:
        self._python = environment("ray", "ray[serve]==2.60.0")
        return f"ray {version(self._python, 'ray')}"

    @contextmanager
    def running(self) -> Iterator[Endpoint]:
        port = free_port()
        address = f"127.0.0.1:{port}"
        # A short name, because Ray puts Unix sockets deep below this folder.
        with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
            command = [self._python, APP, str(port), str(free_port()), folder]
            with server(command, Path(folder) / "log", lambda: _ready(address), _environment()):
                yield Endpoint("bytes", address, METHOD, APPLICATION)


def _environment() -> Mapping[str, str]:
    """Reachable with a token only, as Ray listens on every interface; Ray's own workers must find the module."""
    return {
        "PYTHONPATH": str(APP.parent),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",  # one loop per replica, gRPC between replicas, no access log flushes
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0",  # which that sets too, and which opens fixed ports
    }


def _ready(address: str) -> bool:
    return channel_ready(
        lambda channel: channel.unary_unary(METHOD, BytesValue.SerializeToString, BytesValue.FromString)(
            BytesValue(value=bytes(128)), timeout=5, metadata=tuple(APPLICATION)
        ),
        address,
    )
