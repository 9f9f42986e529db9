"""Small stores, and workers that push everything at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import torch

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.learning.layout import planned
from encephalon.learning.optimizers import whole
from encephalon.parameter_server.contribution import Contribution
from encephalon.parameter_server.store import Store

__all__ = ["PARAMETER", "TENSORS", "gradients", "optimizer", "push", "store", "tensor"]

PARAMETER, BUFFER = pb.Tensor.KIND_PARAMETER, pb.Tensor.KIND_BUFFER


def tensor(name: str, *shape: int, kind: pb.Tensor.Kind.ValueType = PARAMETER) -> pb.Tensor:
    return pb.Tensor(name=name, shape=shape, kind=kind)


TENSORS = (
    tensor("a/weight", 40, 70),
    tensor("a/bias", 7),
    tensor("a/mean", 5, kind=BUFFER),
    tensor("b/weight", 33, 3),
    tensor("b/bias", 1),
)


def optimizer(
    name: str = "SGD", schedule: str = "", schedule_arguments: object = None, **arguments: object
) -> pb.Optimizer:
    return pb.Optimizer(
        name=name,
        arguments=json.dumps(arguments),
        schedule=schedule,
        schedule_arguments=json.dumps(schedule_arguments or {}),
    )


def store(
    wanted: pb.Optimizer | None = None, tensors: Sequence[pb.Tensor] = TENSORS, *, buffers: int = 8, shards: int = 1
) -> Store:
    """Shard 0 of some, generation 1, all zeros, plain SGD of rate 1."""
    wanted = wanted or optimizer(lr=1.0)
    return Store(planned(tensors, shards, whole=whole(wanted)), 0, wanted, buffers=buffers)


def gradients(seed: int, tensors: Sequence[pb.Tensor] = TENSORS) -> dict[str, torch.Tensor | None]:
    """By tensor, of very different sizes, so that the order of additions shows."""
    generator = torch.Generator().manual_seed(seed)
    return {
        each.name: torch.randn(tuple(each.shape), generator=generator)
        * 10 ** torch.randn(tuple(each.shape), generator=generator)
        for each in tensors
    }


def push(
    shard: Store,
    values: Mapping[str, torch.Tensor | None],
    update: int = 1,
    rank: int = 0,
    attempt: int = 0,
    slices: Sequence[int] | None = None,
) -> Contribution:
    """Some slices of a contribution, in reverse order as a backward pass has them; by default all."""
    contribution = shard.contribution(shard.generation, update, rank, attempt)
    for number in reversed(shard.slices if slices is None else slices):
        cut = shard.layout.slices[number]
        value = values[shard.layout.tensors[cut.tensor].name]
        if value is None:
            contribution.absent(number)
        else:
            contribution.buffer(number).copy_(value.reshape(-1)[cut.start : cut.stop])
            contribution.filled(number)
    return contribution
