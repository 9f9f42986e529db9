"""The run of some settings, computed in this process: what its workers, shards and control node must come to together.

It loads the brain and orders the samples as a worker does; shares, sums, clipping and the optimiser are its own.
"""

from __future__ import annotations

import asyncio

import torch
from torch import Tensor, nn

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.learning.brain import LearningBrain, load_brain
from encephalon.learning.samples import Samples, reading_samples
from encephalon.training.runs import RunSettings
from tests.training.reference import Reference, batches
from tests.training.runs import Place

__all__ = ["single", "trained"]


async def trained(place: Place, settings: RunSettings, updates: int, *, whole: bool = False) -> dict[str, Tensor]:
    """The tensors of a run in `sync` after so many updates. whole: as one share of the whole batch, not by workers."""
    async with place.library() as library:
        brain = await load_brain(library, settings.brain, settings)
    return await asyncio.to_thread(single, place, settings, brain, updates, 1 if whole else settings.workers)


def single(place: Place, settings: RunSettings, brain: LearningBrain, updates: int, workers: int) -> dict[str, Tensor]:
    kinds = {each.name: each.kind for each in brain.tensors()}
    state = brain.state()
    learned = {name: each for name, each in state.items() if kinds[name] == pb.Tensor.KIND_PARAMETER}
    running = {name: each for name, each in state.items() if kinds[name] == pb.Tensor.KIND_BUFFER}
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        with reading_samples(place.library(), settings, brain.routing) as samples:
            reference = Reference(
                learned,
                running,
                lambda epoch, part: sum_of_losses(brain, samples, settings, epoch, part),
                settings.optimizer,
                settings.optimizer_arguments,
                schedule=settings.schedule,
                schedule_arguments=settings.schedule_arguments,
                clip_norm=settings.clip_norm,
            )
            size = settings.batch_size
            for epoch, parts in batches(samples.training, size, workers=workers, updates=updates):
                reference.update(epoch, parts)
            return reference.state()
    finally:
        torch.set_num_threads(threads)


def sum_of_losses(brain: LearningBrain, samples: Samples, settings: RunSettings, epoch: int, part: range) -> Tensor:
    batch = samples.train(epoch, part.start, part.stop)
    outputs = brain(batch.inputs)
    targets = settings.targets or {brain.brain.outputs[0].name: 1.0}
    parts = [
        weight * nn.functional.cross_entropy(outputs[f"{name}.logits"], batch.labels, reduction="sum")
        for name, weight in targets.items()
    ]
    return torch.stack(parts).sum()
