"""A domain that gives back what it gets, and a server around it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import grpc

from encephalon.core import errors
from encephalon.core.contract import Contract, TensorSpec
from encephalon.core.errors import EncephalonError, NotFound
from encephalon.core.inference import (
    BatchStatistics,
    Duration,
    InferenceService,
    Instant,
    LoadParameter,
    ModelDescription,
    ModelIndexEntry,
    Models,
    ModelStatistics,
    Step,
)
from encephalon.core.wire import DATATYPES, InferRequest, InferResponse

__all__ = ["Echo", "instantly", "served"]

CONTRACT = Contract(
    tuple(TensorSpec(f"x_{name.lower()}", name, (-1, -1), optional=True) for name in DATATYPES),
    tuple(TensorSpec(f"y_{name.lower()}", name, (-1, -1)) for name in DATATYPES),
)


class Echo:
    """Implements Models. Input `x_fp32` comes back as `y_fp32`. Parameters of a request say what else happens:

    `hold` waits for `released`, `fail` names the error to raise, `crash` divides by zero.
    """

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.running = 0
        self.cancelled = 0
        self.deadlines: list[float] = []
        self.requests: list[InferRequest] = []
        self.loaded: dict[str, dict[str, LoadParameter]] = {}

    def server_name(self) -> str:
        return "echo-server"

    def ready(self) -> bool:
        return True

    def model_ready(self, name: str, version: str = "") -> bool:
        self.describe(name, version)
        return True

    def describe(self, name: str, version: str = "") -> ModelDescription:
        if name != "echo" or version not in ("", "1"):
            raise NotFound(f"there is no model '{name}' of version '{version}'", model=name)
        steps = (Step("visual", {"image": "image"}, {"features": "visual.features"}),)
        return ModelDescription(
            "echo", ("1",), "encephalon", CONTRACT, 8, 0.002, 2, parameters={"network": "echo/001"}, steps=steps
        )

    def statistics(self, name: str = "", version: str = "") -> Sequence[ModelStatistics]:
        if name:
            self.describe(name, version)
        batches = {4: BatchStatistics(4, Duration(2, 900))}
        return [ModelStatistics("echo", "1", 123, 8, 2, success=Duration(8, 1000), batches=batches)]

    def index(self) -> Sequence[ModelIndexEntry]:
        return [ModelIndexEntry("echo", "1", "READY"), ModelIndexEntry("broken", "", "UNAVAILABLE", "no weights")]

    async def infer(self, request: InferRequest, deadline: float | None = None) -> InferResponse:
        assert deadline is not None
        self.requests.append(request)
        self.deadlines.append(deadline - asyncio.get_running_loop().time())
        self.running += 1
        try:
            return await self._answer(request)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def _answer(self, request: InferRequest) -> InferResponse:
        self.describe(request.model_name, request.model_version)
        if request.parameters.get("hold"):
            await self.released.wait()
        if request.parameters.get("crash"):
            raise ZeroDivisionError("secret")
        if kind := request.parameters.get("fail"):
            error: EncephalonError = getattr(errors, str(kind))("it failed as told", tensor="x", region="visual")
            raise error
        outputs = [tensor.renamed(tensor.name.replace("x_", "y_", 1)) for tensor in request.inputs]
        return InferResponse("echo", "1", parameters={"rows": len(outputs)}, outputs=outputs)

    async def load(self, name: str, parameters: Mapping[str, LoadParameter]) -> None:
        self.loaded[name] = dict(parameters)

    async def unload(self, name: str, parameters: Mapping[str, LoadParameter]) -> None:
        if self.loaded.pop(name, None) is None:
            raise NotFound(f"there is no model '{name}'")


def instantly(models: Models, cheap: bool = True, max_message_bytes: int = 1 << 26) -> Instant:
    """Answers whatever `models` can answer without waiting."""

    def infer_now(request: InferRequest, deadline: float | None) -> InferResponse | None:
        work = models.infer(request, deadline)
        try:
            work.send(None)  # type: ignore[attr-defined] -- a coroutine
        except StopIteration as answered:
            response: InferResponse = answered.value
            return response
        raise AssertionError("it wanted to wait")

    return Instant(infer_now, lambda: cheap, 10.0, max_message_bytes)


@contextlib.asynccontextmanager
async def served(service: InferenceService, folder: Path | None = None) -> AsyncIterator[str]:
    """Its address: a Unix socket in `folder`, or a port of 127.0.0.1."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([service.handler()])
    if folder is None:
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    else:
        address = f"unix:{folder}/s"
        server.add_insecure_port(address)
    await server.start()
    try:
        yield address
    finally:
        service.drain()
        await server.stop(None)
