"""A coordinator in this process, and stand-ins for regions behind a real server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np

from encephalon.coordinator import Coordinator, CoordinatorSettings, coordinate
from encephalon.core.contract import Contract, TensorSpec
from encephalon.core.inference import InferenceClient, InferenceService, ModelDescription
from encephalon.core.serving import serving
from encephalon.core.shared_memory import SharedMemory
from encephalon.core.wire import InferRequest, InferResponse, Tensor
from encephalon.library.brains import Brain, parse_manifest
from encephalon.state import KeyValue

__all__ = ["Standin", "ask", "brain_of", "coordinated", "served", "total"]


def brain_of(*addresses: str) -> Brain:
    """`test`: regions r0, r1, ... at these addresses each take `x` and give y0, y1, ..."""
    return parse_manifest(
        "brain: test\n"
        "inputs: {x: {datatype: FP32, shape: [-1, -1]}}\n"
        "regions:\n" + "".join(f"  r{n}: {{address: '{at}', model: echo}}\n" for n, at in enumerate(addresses))
        + "pathways:\n" + "".join(f"  - {{from: x, to: r{n}.x}}\n" for n in range(len(addresses)))
        + "outputs: {" + ", ".join(f"y{n}: r{n}.y" for n in range(len(addresses))) + "}\n"
    )  # fmt: skip


class Standin:
    """Serves a model `echo`; `hanging` keeps requests until they are cancelled, which it counts."""

    def __init__(self) -> None:
        self.hanging = False
        self.asked = 0
        self.cancelled = 0
        spec = [TensorSpec(name, "FP32", (-1, -1)) for name in "xy"]
        self.contract = Contract((spec[0],), (spec[1],))

    def server_name(self) -> str:
        return "stand-in"

    def ready(self) -> bool:
        return True

    def model_ready(self, name: str, version: str = "") -> bool:
        return True

    def describe(self, name: str, version: str = "") -> ModelDescription:
        return ModelDescription("echo", ("1",), "test", self.contract)

    def statistics(self, name: str = "", version: str = "") -> Sequence[Any]:
        return []

    def index(self) -> Sequence[Any]:
        return []

    async def infer(self, request: InferRequest, deadline: float | None = None) -> InferResponse:
        self.asked += 1
        try:
            if self.hanging:
                await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return InferResponse(request.model_name, "1", request.id, {}, [request.inputs[0].renamed("y")])

    async def load(self, name: str, parameters: Any) -> None: ...

    async def unload(self, name: str, parameters: Any) -> None: ...


@contextlib.asynccontextmanager
async def served(
    standin: Standin, address: str = "127.0.0.1:0", memory: SharedMemory | None = None
) -> AsyncIterator[str]:
    """Its address."""
    service = InferenceService(standin, shared_memory=memory)
    async with serving([service.handler()], addresses=[address]) as server:
        yield server.addresses[0]
        service.drain()


@contextlib.asynccontextmanager
async def coordinated(
    *brains: Brain, store: KeyValue | None = None, **settings: Any
) -> AsyncIterator[tuple[Coordinator, InferenceClient]]:
    """A coordinator on a free port, and a client of it."""
    chosen = CoordinatorSettings(listen="127.0.0.1:0", **settings)
    async with (
        coordinate(chosen, brains, store=store) as running,
        InferenceClient(running.server.addresses[0]) as client,
    ):
        yield running, client


def ask(brain: str = "test", value: float = 1.0, **inputs: float) -> InferRequest:
    values = inputs or {"x": value}
    return InferRequest(
        brain, inputs=[Tensor.of(name, np.full((1, 4), each, np.float32)) for name, each in values.items()]
    )


def total(response: InferResponse) -> float:
    return float(sum(tensor.array.sum() for tensor in response.outputs))
