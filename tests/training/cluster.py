"""Shards and workers of a run as threads of this process, with the real data plane between them. What the control node
decides is decided here, so that nothing but sums and bytes is tested."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.api.training.v1 import training_pb2 as training_pb
from encephalon.core.host import host_identity
from encephalon.core.serving import serving
from encephalon.learning.layout import planned
from encephalon.learning.parameters import ParameterClient
from encephalon.parameter_server.data import DATA_LIMITS, ParameterData
from encephalon.parameter_server.decisions import Decision
from encephalon.parameter_server.shared import SharedParameters
from encephalon.parameter_server.store import Store

__all__ = ["Cluster", "ModelLosses", "cluster", "optimizer", "tensors_of"]

ModelLosses = Callable[[nn.Module, range], Tensor]
"""The sum of the losses of these samples."""


def optimizer(name: str, arguments: Mapping[str, Any], schedule: str = "", **more: Any) -> pb.Optimizer:
    return pb.Optimizer(
        name=name, arguments=json.dumps(dict(arguments)), schedule=schedule, schedule_arguments=json.dumps(more)
    )


def tensors_of(model: nn.Module) -> list[tuple[pb.Tensor, Tensor]]:
    """What travels: parameters, and floating-point buffers."""
    learned = [(name, each, pb.Tensor.KIND_PARAMETER) for name, each in model.named_parameters()]
    running = [(n, each, pb.Tensor.KIND_BUFFER) for n, each in model.named_buffers() if each.is_floating_point()]
    return [(pb.Tensor(name=name, shape=each.shape, kind=kind), each) for name, each, kind in [*learned, *running]]


@dataclass
class Replica:
    """A worker."""

    model: nn.Module
    client: ParameterClient
    losses: ModelLosses

    def train(self, share: training_pb.Share) -> None:
        self.client.connect(share.shards)
        into = {described.name: each for described, each in tensors_of(self.model)}
        with torch.no_grad():
            pull = self.client.pulling(share, {name: each.detach() for name, each in into.items()})
            pull.wait_all()
        self.model.zero_grad(set_to_none=True)
        part = range(share.start, share.stop)
        (self.losses(self.model, part) / share.divisor).backward()  # type: ignore[no-untyped-call]
        push = self.client.pushing(share)
        for name, each in reversed(into.items()):
            if isinstance(each, nn.Parameter):
                push.gradient(name, each.grad)
            else:
                push.value(name, each.detach() * (len(part) / share.divisor))
        push.finish()


class Cluster:
    """`state` are the parameters as the shards have them."""

    def __init__(
        self,
        layout: pb.Layout,
        stores: Sequence[Store],
        shards: training_pb.Shards,
        replicas: Sequence[Replica],
        threads: ThreadPoolExecutor,
        clip_norm: float | None,
    ) -> None:
        self.version = 0
        self.norm = 0.0
        self.replicas = replicas
        self._layout, self._stores, self._shards, self._threads = layout, stores, shards, threads
        self._clip_norm = clip_norm

    async def update(self, parts: Sequence[range]) -> None:
        update = self.version + 1
        loop = asyncio.get_running_loop()
        pushing = [
            loop.run_in_executor(self._threads, self.replicas[rank].train, self._share(update, rank, part, parts))
            for rank, part in enumerate(parts)
        ]
        wanted = [(rank, 0) for rank in range(len(parts))]
        preparing = [store.prepare(update, wanted) for store in self._stores]
        prepared = (await asyncio.gather(asyncio.gather(*preparing), asyncio.gather(*pushing)))[0]
        self.norm = math.sqrt(sum(each.squared_norm for each in prepared))
        scale = min(1.0, self._clip_norm / self.norm) if self._clip_norm is not None else 1.0
        deciding = [store.decide(update, Decision.APPLY, version=update, scale=scale) for store in self._stores]
        await asyncio.gather(*deciding)
        self.version = update

    @property
    def state(self) -> dict[str, Tensor]:
        found = {each.name: torch.empty(tuple(each.shape)) for each in self._layout.tensors}
        for number, cut in enumerate(self._layout.slices):
            flat = found[self._layout.tensors[cut.tensor].name].view(-1)
            flat[cut.start : cut.stop] = self._stores[cut.shard].parameters(number)[1]
        return found

    def _share(self, update: int, rank: int, part: range, parts: Sequence[range]) -> training_pb.Share:
        return training_pb.Share(
            kind=training_pb.Share.KIND_TRAIN,
            generation=self._shards.generation,
            update=update,
            rank=rank,
            version=update - 1,
            start=part.start,
            stop=part.stop,
            divisor=sum(len(each) for each in parts),
            shards=self._shards,
        )


@contextlib.asynccontextmanager
async def cluster(
    model: nn.Module,
    losses: ModelLosses,
    chosen: pb.Optimizer,
    *,
    workers: int,
    shards: int,
    share_memory: bool = True,
    wire: str = "fp32",
    clip_norm: float | None = None,
) -> AsyncIterator[Cluster]:
    """The model is copied, for every worker once."""
    tensors = tensors_of(model)
    layout = planned([described for described, _ in tensors], shards)
    async with contextlib.AsyncExitStack() as stack:
        stores, addresses = [], []
        for number in range(shards):
            memory = SharedParameters()
            stack.callback(memory.close)
            store = Store(layout, number, chosen, memory=memory)
            stack.callback(store.close)
            for at in store.slices:
                cut = layout.slices[at]
                store.parameters(at)[1].copy_(tensors[cut.tensor][1].detach().reshape(-1)[cut.start : cut.stop])
            data = ParameterData(lambda store=store: store)  # type: ignore[misc]
            served = await stack.enter_async_context(
                serving([data.handler()], addresses=["127.0.0.1:0"], limits=DATA_LIMITS)
            )
            stack.callback(data.close)
            stores.append(store)
            addresses.append(served.addresses[0])
        where = training_pb.Shards(generation=1, data_addresses=addresses, hosts=[host_identity()] * shards)
        threads = stack.enter_context(
            ThreadPoolExecutor(workers, "worker", initializer=torch.set_num_threads, initargs=(1,))
        )
        replicas = [
            Replica(copy.deepcopy(model), ParameterClient(layout, wire=wire, share_memory=share_memory), losses)
            for _ in range(workers)
        ]
        for replica in replicas:
            stack.callback(replica.client.close)
        yield Cluster(layout, stores, where, replicas, threads, clip_norm)
