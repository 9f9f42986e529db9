"""The networks that a run has made: what a region's shape is filled with, and how the library keeps it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.api.parameter_server.v1.parameter_server_pb2 import Checkpoint
from encephalon.areas import weights as weight_files
from encephalon.core.errors import FailedPrecondition
from encephalon.learning.brain import learning_region, weights_of
from encephalon.learning.region import LearningRegion
from encephalon.library.areas import find_area
from encephalon.library.brains import Brain
from encephalon.library.brains.pinning import contract_message
from encephalon.training.runs import RunSettings

if TYPE_CHECKING:
    from encephalon.library.library import Library

__all__ = ["Made", "learned_regions", "made"]


class Made(NamedTuple):
    """The body of a network's record lacks its weights, which are the bytes."""

    network: pb.Network
    weights: bytes


def learned_regions(checkpoint: Checkpoint) -> list[str]:
    """By its tensors, which are called REGION/NAME; in their order."""
    return list(dict.fromkeys(tensor.name.partition("/")[0] for tensor in checkpoint.tensors))


async def made(
    library: Library, brain: Brain, name: str, tensors: Mapping[str, Tensor], settings: RunSettings, version: str
) -> Made:
    """Of one region. Buffers that do not travel (counters) are as they were before. FailedPrecondition, naming the
    tensor, when the tensors are not those of the region, or not finite.
    """
    spec = brain.region(name)
    source = await weights_of(library, spec)
    arguments = dict(weight_files.read(source).arguments) if source is not None else {}
    arguments |= spec.arguments
    region = await asyncio.to_thread(
        learning_region, spec, source, trainable=True, from_scratch=settings.from_scratch, seed=settings.seed
    )
    _fill(region, tensors)
    area, _, code = spec.network.partition("/")
    network = pb.Network(
        area=area,
        code=code,
        architecture=find_area(area).networks[code],
        arguments=json.dumps(arguments, sort_keys=True),
        contract=contract_message(region.contract),
        format="safetensors",
    )
    data = await asyncio.to_thread(weight_files.dumps, region.module, spec.network, arguments, version)
    return Made(network, data)


def _fill(region: LearningRegion, tensors: Mapping[str, Tensor]) -> None:
    live = region.state()
    mine = {name for name in tensors if name.partition("/")[0] == region.name}
    if other := sorted(live.keys() ^ mine):
        raise FailedPrecondition(
            f"the checkpoint is not of region '{region.name}' as it is in the brain: tensor '{other[0]}' is only in "
            f"{'the brain' if other[0] in live else 'the checkpoint'}",
            tensor=other[0],
        )
    for name in sorted(mine):
        if tensors[name].shape != live[name].shape or not bool(torch.isfinite(tensors[name]).all()):
            what = f"has shape {list(tensors[name].shape)}, expected {list(live[name].shape)}, or is not finite"
            raise FailedPrecondition(f"tensor '{name}' of the checkpoint {what}", tensor=name)
        with torch.no_grad():
            live[name].copy_(tensors[name])
