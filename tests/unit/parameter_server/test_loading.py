"""What a shard is told to load is looked at before it takes memory for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.core.errors import FailedPrecondition, InvalidInput
from encephalon.learning.checkpoint import write_initial
from encephalon.learning.layout import planned
from encephalon.parameter_server.memory import check_size
from encephalon.parameter_server.shard import Shard
from encephalon.parameter_server.shared import SharedParameters
from encephalon.state import Objects
from encephalon.state.folder import Folder
from tests.unit.parameter_server.shards import optimizer

SMALL = (
    pb.Tensor(name="a", shape=[4, 3], kind=pb.Tensor.KIND_PARAMETER),
    pb.Tensor(name="b", shape=[5], kind=pb.Tensor.KIND_BUFFER),
)
Cut = tuple[int, int, int, int]
"""Tensor, first element, the one after the last, shard."""


@dataclass
class Loader:
    objects: Objects
    folder: Path
    work: ThreadPoolExecutor

    async def load(self, layout: pb.Layout, *, shard: int = 0, wanted: pb.Optimizer | None = None) -> pb.Piece:
        """The piece that the shard then writes."""
        made = Shard("run", shard, self.objects, self.folder, self.work, SharedParameters)
        zeros = [(each, torch.zeros(tuple(each.shape))) for each in SMALL]
        request = pb.LoadRequest(
            run="run",
            generation=1,
            shard=shard,
            layout=layout,
            optimizer=wanted or optimizer(lr=1.0),
            checkpoint=await write_initial(self.objects, "run/0", zeros),
        )
        try:
            return await made.checkpoint(await made.load(request), 0, f"run/piece-{shard}")
        finally:
            await made.close()


@pytest.fixture
async def loader(tmp_path: Path) -> AsyncIterator[Loader]:
    async with Folder(tmp_path / "objects", deadline_s=10) as objects:
        with ThreadPoolExecutor(1) as work:
            yield Loader(objects, tmp_path, work)


def cut(*cuts: Cut, tensors: tuple[pb.Tensor, ...] = SMALL, shards: int = 1) -> pb.Layout:
    slices = [pb.Slice(tensor=at, start=start, stop=stop, shard=shard) for at, start, stop, shard in cuts]
    return pb.Layout(tensors=tensors, slices=slices, shards=shards)


@pytest.mark.parametrize(
    "layout",
    [
        cut((0, 0, 6, 0), (1, 0, 5, 0)),
        cut((0, 0, 12, 0), (0, 6, 12, 0), (1, 0, 5, 0)),
        cut((0, 0, 13, 0), (1, 0, 5, 0)),
        cut((1, 0, 5, 0), (0, 0, 12, 0), (1, 0, 5, 0)),
        cut((0, 0, 12, 0), (1, 0, 5, 7)),
        cut((0, 0, 12, 0)),
        cut((0, 0, 12, 0), (1, 0, 5, 0), (2, 0, 1, 0)),
        cut((0, 0, 12, 0), (1, 0, 0, 0), (1, 0, 5, 0)),
        cut((0, 0, 1 << 62, 0), tensors=(pb.Tensor(name="a", shape=[1 << 63, 1 << 63], kind=1),)),
        cut((0, 0, 12, 0), tensors=(pb.Tensor(name="a", shape=[12]),)),
    ],
)
async def test_a_layout_that_has_elements_twice_or_not_at_all_is_refused(loader: Loader, layout: pb.Layout) -> None:
    with pytest.raises(InvalidInput):
        await loader.load(layout)


async def test_what_is_not_in_the_checkpoint_takes_no_memory(loader: Loader) -> None:
    huge = pb.Tensor(name="a", shape=[1 << 40], kind=pb.Tensor.KIND_PARAMETER)
    with pytest.raises(FailedPrecondition, match="another model"):
        await loader.load(cut((0, 0, 1 << 40, 0), tensors=(huge,)))
    with pytest.raises(InvalidInput, match="more shards"):
        check_size(1 << 60)


async def test_a_shard_without_a_slice_is_one_all_the_same(loader: Loader) -> None:
    pieces = [await loader.load(planned(SMALL, 3), shard=shard) for shard in range(3)]
    assert [len(piece.slices) for piece in pieces] == [1, 1, 0]


@pytest.mark.parametrize(
    ("schedule", "arguments"),
    [("CosineAnnealingLR", '{"T_max": 0}'), ("StepLR", '{"step_size": "x"}'), ("ExponentialLR", '{"gamma": "x"}')],
)
async def test_a_schedule_that_cannot_be_stepped_is_refused(loader: Loader, schedule: str, arguments: str) -> None:
    wanted = pb.Optimizer(name="AdamW", arguments="{}", schedule=schedule, schedule_arguments=arguments)
    with pytest.raises(InvalidInput, match=f"{schedule} does not take"):
        await loader.load(planned(SMALL, 1), wanted=wanted)


async def test_an_optimizer_with_too_few_arguments_is_refused(loader: Loader) -> None:
    with pytest.raises(InvalidInput, match="AdamW does not take"):
        await loader.load(planned(SMALL, 1), wanted=pb.Optimizer(name="AdamW", arguments='{"betas": [0.9]}'))
