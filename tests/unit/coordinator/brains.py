"""Small brains and replicas that behave as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np

from encephalon.coordinator.execution import Execution
from encephalon.coordinator.link import Link, LinkOptions
from encephalon.coordinator.plan import Plan
from encephalon.coordinator.replicas import InProcessReplica, Replica
from encephalon.core.wire import InferRequest, InferResponse, Tensor
from encephalon.library.brains import Brain, parse_manifest

Behaviour = Callable[[InferRequest], Awaitable[object] | None]

PAIR = """
brain: pair
inputs:
  left: {datatype: FP32, shape: [-1, -1], optional: true}
  right: {datatype: FP32, shape: [-1, -1], optional: true}
regions:
  first: {network: diagnostics/001}
  second: {network: diagnostics/001}
  join: {network: diagnostics/002}
pathways:
  - {from: left, to: first.x}
  - {from: right, to: second.x}
  - {from: first.y, to: join.a%s}
  - {from: second.y, to: join.b%s}
outputs:
  sum: join.y
  one: first.y
"""


def pair(first: str = "", second: str = "") -> Brain:
    """Two identities and their sum; the arguments are further keys of the pathways into the sum."""
    return parse_manifest(PAIR % (first and f", {first}", second and f", {second}"))


class Region:
    """Adds what comes and answers as `y`; `behaviour` may wait or raise first."""

    def __init__(self, behaviour: Behaviour | None = None, version: str = "1") -> None:
        self.behaviour = behaviour
        self.version = version
        self.asked: list[InferRequest] = []
        self.cancelled = 0

    async def infer(self, request: InferRequest, deadline: float | None) -> InferResponse:
        self.asked.append(request)
        try:
            if self.behaviour is not None and (waiting := self.behaviour(request)) is not None:
                await waiting
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        total = np.sum([tensor.array for tensor in request.inputs], axis=0, dtype=np.float32)
        outputs = [Tensor.of("y", total)]
        return InferResponse(request.model_name, self.version, request.id, {"queue_ms": 0.5}, outputs)


def hang(_: InferRequest) -> Awaitable[object]:
    return asyncio.get_running_loop().create_future()


def link(region: str, *targets: Region, options: LinkOptions | None = None, brain: str = "pair") -> Link:
    made = Link(brain, region, options or LinkOptions(grace_s=0.1))
    for number, target in enumerate(targets):
        made.add(InProcessReplica(f"{region}-{number}", target))
    return made


def ask(**values: float) -> InferRequest:
    """A request of one row of two equal numbers per input."""
    inputs = [Tensor.of(name, np.full((1, 2), value, np.float32)) for name, value in values.items()]
    return InferRequest("pair", id="7", inputs=inputs)


def execution(brain: Brain, links: dict[str, Link], request: InferRequest, seconds: float = 5.0) -> Execution:
    loop = asyncio.get_running_loop()
    plan = Plan(brain)
    return Execution(plan, [links[step.region] for step in plan.steps], request, loop.time() + seconds, "1", loop)


async def run(brain: Brain, links: dict[str, Link], request: InferRequest, seconds: float = 5.0) -> InferResponse:
    return await execution(brain, links, request, seconds).run()


def value(response: InferResponse, name: str) -> float | None:
    for tensor in response.outputs:
        if tensor.name == name:
            return float(tensor.array[0, 0])
    return None


def replica(made: Link, number: int = 0) -> Replica:
    return made.replicas[f"{made.region}-{number}"]
