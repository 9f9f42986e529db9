"""The regions of a brain as real services on loopback, in threads of this process; the shards are dictionaries."""

from __future__ import annotations

import copy
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from encephalon.api.discovery.v1.instance_pb2 import Instance
from encephalon.api.learning.v1 import learning_pb2 as pb
from encephalon.core.blocking import blocking
from encephalon.core.serving import serving
from encephalon.learning.brain import LearningBrain
from encephalon.learning.layout import planned
from encephalon.learning.losses import losses
from encephalon.learning.samples import Batch
from encephalon.region.learning.actor import LearningActor
from encephalon.region.learning.service import RegionLearningService
from encephalon.region.learning.stage import Run, Stage
from encephalon.training.pipeline.pipeline import Pipeline
from encephalon.training.pipeline.places import Places
from encephalon.training.runs import RunSettings
from tests.unit.training.worker.fakes import FakeClient

__all__ = ["Rendezvous", "Staged", "staged", "steady", "unsplit"]

Event = tuple[str, str, str, int]
"""begin or end, region, forward or backward, micro-batch."""


class Recorded(Stage):
    """Says what it does when. `meet` is called in the middle of each pass."""

    events: list[Event]
    meet: Callable[[str, str, int], None]

    def forward(self, run: Run, micro_batch: int, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        self._passes("forward", micro_batch)
        found = super().forward(run, micro_batch, inputs)
        self.events.append(("end", self.region.name, "forward", micro_batch))
        return found

    def backward(self, run: Run, micro_batch: int, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        self._passes("backward", micro_batch)
        found = super().backward(run, micro_batch, gradients)
        self.events.append(("end", self.region.name, "backward", micro_batch))
        return found

    def _passes(self, direction: str, micro_batch: int) -> None:
        self.events.append(("begin", self.region.name, direction, micro_batch))
        self.meet(self.region.name, direction, micro_batch)


@dataclass
class Staged:
    """What a worker has, and what its shards would have."""

    pipeline: Pipeline
    clients: dict[str, FakeClient]
    events: list[Event] = field(default_factory=list)
    prepared: list[str] = field(default_factory=list)
    places: Places = field(default_factory=lambda: Places("w"))

    @property
    def weights(self) -> dict[str, Tensor]:
        return {name: each for client in self.clients.values() for name, each in client.weights.items()}

    def sent(self) -> dict[str, Tensor | None]:
        """By the last share."""
        return {name: each for client in self.clients.values() for name, each in client.pushes[-1].sent.items()}

    def descend(self, rate: float) -> None:
        for client in self.clients.values():
            for name, gradient in client.pushes[-1].sent.items():
                if gradient is not None:
                    client.weights[name] -= rate * gradient

    def most_held(self, region: str) -> int:
        held, most = 0, 0
        for what, name, direction, _ in self.events:
            if name == region:
                held += (what, direction) == ("begin", "forward")
                held -= (what, direction) == ("end", "backward")
                most = max(most, held)
        return most


def steady(brain: LearningBrain) -> LearningBrain:
    """Without dropout, which no two ways to cut a batch draw alike."""
    for each in brain.modules():
        if isinstance(each, nn.Dropout):
            each.p = 0.0
    return brain


def unsplit(brain: LearningBrain, settings: RunSettings, batch: Batch) -> tuple[float, dict[str, Tensor | None]]:
    """Loss and gradients of the brain in one piece."""
    for each in brain.learned():
        each.tensor.grad = None
    total, _ = losses(brain(batch.inputs), batch.labels, settings, brain.routing.targets)
    (total / len(batch)).backward()  # type: ignore[no-untyped-call]
    return float(total.detach()), {each.name: each.tensor.grad for each in brain.learned()}


@contextmanager
def staged(
    brain: LearningBrain,
    settings: RunSettings,
    meet: Callable[[str, str, int], None] = lambda *_: None,
    **more: float,
) -> Iterator[Staged]:
    """`meet`: see Recorded. `more`: time-outs of the driver."""
    clients = {name: FakeClient(region.state()) for name, region in brain.regions.items() if region.trainable}
    places = Places("w")
    with blocking(_served(brain, clients, places, meet)) as served:
        pipeline = Pipeline(brain, settings, places, **more)
        try:
            pipeline.begin(planned(brain.tensors(), 1))
            yield Staged(pipeline, clients, served.events, served.prepared, places)
        finally:
            pipeline.close()


@dataclass
class _Served:
    events: list[Event] = field(default_factory=list)
    prepared: list[str] = field(default_factory=list)


@asynccontextmanager
async def _served(
    brain: LearningBrain, clients: dict[str, FakeClient], places: Places, meet: Callable[[str, str, int], None]
) -> AsyncIterator[_Served]:
    served, instances = _Served(), []
    async with AsyncExitStack() as stack:
        for name in brain.regions:
            actor = LearningActor(
                _loads(brain, clients, served, meet), beat_s=0.05, prepare_thread=lambda: torch.set_num_threads(1)
            )
            stack.push_async_callback(actor.close)
            await actor.start()
            handler = RegionLearningService(actor).handler()
            server = await stack.enter_async_context(serving([handler], addresses=["127.0.0.1:0"]))
            instances.append(
                Instance(region=f"w.{name}", id=f"{name}-1", address=server.addresses[0], state=Instance.STATE_READY)
            )
        places.announced(instances)
        yield served


def _loads(
    brain: LearningBrain, clients: dict[str, FakeClient], served: _Served, meet: Callable[[str, str, int], None]
) -> Callable[[pb.PrepareRequest], object]:
    async def load(request: pb.PrepareRequest) -> Callable[[], Stage]:
        def make() -> Stage:
            served.prepared.append(request.region)
            # Hooks would be called by the threads of the copy.
            region = copy.deepcopy(brain.regions[request.region])
            stage = Recorded(region, clients.get(request.region), recompute=request.recompute)
            stage.events, stage.meet = served.events, meet
            return stage

        return make

    return load


class Rendezvous:
    """Two passes that go on only when both have begun."""

    def __init__(self, *passes: tuple[str, str, int], within_s: float = 20.0) -> None:
        self._passes = set(passes)
        self._barrier = threading.Barrier(len(passes), timeout=within_s)

    def __call__(self, region: str, direction: str, micro_batch: int) -> None:
        if (region, direction, micro_batch) in self._passes:
            self._barrier.wait()
