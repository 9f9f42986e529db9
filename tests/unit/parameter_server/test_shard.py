from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.core.errors import Corrupt, FailedPrecondition, Unavailable
from encephalon.learning.checkpoint import write_initial
from encephalon.learning.layout import planned
from encephalon.parameter_server.decisions import Decision
from encephalon.parameter_server.shard import Shard
from encephalon.state import ObjectInfo, Objects
from encephalon.state.folder import Folder
from encephalon.state.objects import Progress, unseen
from tests.unit.parameter_server.shards import TENSORS, gradients, optimizer, push
from tests.waiting import until


class Slow(Folder):
    """Uploads when it is told to, or fails."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, deadline_s=10)
        self.may = asyncio.Event()
        self.away = False
        self.uploads = 0

    async def upload(self, key: str, path: Path, *, sha256: str, progress: Progress = unseen) -> ObjectInfo:
        self.uploads += 1
        await self.may.wait()
        if self.away:
            raise Unavailable("the store does not answer")
        return await super().upload(key, path, sha256=sha256, progress=progress)


@pytest.fixture
async def slow(tmp_path: Path) -> AsyncIterator[Slow]:
    async with Slow(tmp_path / "objects") as opened:
        yield opened


@pytest.fixture
async def shard(slow: Slow, tmp_path: Path) -> AsyncIterator[Shard]:
    with ThreadPoolExecutor(1) as work:
        made = Shard("run", 0, slow, tmp_path, work)
        await made.load(await request(slow))
        yield made
        await made.close()


async def request(objects: Objects, generation: int = 1) -> pb.LoadRequest:
    zeros = [(each, torch.zeros(tuple(each.shape))) for each in TENSORS]
    return pb.LoadRequest(
        run="run",
        generation=generation,
        layout=planned(TENSORS, 1),
        optimizer=optimizer(lr=1.0),
        checkpoint=await write_initial(objects, "run/0", zeros),
    )


async def learn(shard: Shard, version: int) -> None:
    store = shard.current()
    push(store, gradients(version), version)
    await store.prepare(version, [(0, 0)])
    await store.decide(version, Decision.APPLY, version=version)


async def test_a_checkpoint_does_not_see_what_is_decided_while_it_is_stored(shard: Shard, slow: Slow) -> None:
    await learn(shard, 1)
    store = shard.current()
    before, taken = store.flat.clone(), asyncio.Event()

    async def on_disk() -> None:
        taken.set()

    first = asyncio.create_task(shard.checkpoint(store, 1, "run/1", on_disk))
    await taken.wait()
    await learn(shard, 2)
    second = asyncio.create_task(shard.checkpoint(store, 1, "run/1"))
    slow.may.set()
    piece = await first
    assert await second == piece
    assert slow.uploads == 1, "who asks again waits for the same"
    again = await request(slow, 2)
    again.checkpoint.CopyFrom(pb.Checkpoint(version=1, tensors=TENSORS, pieces=[piece]))
    assert (await shard.load(again)).version == 1
    assert torch.equal(shard.current().flat, before)
    with pytest.raises(FailedPrecondition, match="loaded anew"):
        await store.prepare(3, [(0, 0)])


async def test_a_store_that_is_away_is_told_and_the_piece_is_asked_for_again(
    shard: Shard, slow: Slow, tmp_path: Path
) -> None:
    slow.away = True
    slow.may.set()
    store = shard.current()
    with pytest.raises(FailedPrecondition, match="version 0 did not reach the object store: the store does not answer"):
        await shard.checkpoint(store, 0, "run/again")
    await learn(shard, 1)
    slow.away = False
    assert (await shard.checkpoint(store, 1, "run/again")).size > 0
    assert not files(tmp_path)


async def test_who_stops_waiting_for_a_checkpoint_does_not_stop_it(shard: Shard, slow: Slow) -> None:
    store = shard.current()
    asking = asyncio.create_task(shard.checkpoint(store, 0, "run/x"))
    await until(lambda: slow.uploads)
    asking.cancel()
    slow.may.set()
    assert (await shard.checkpoint(store, 0, "run/x")).key == "run/x"
    assert slow.uploads == 1


async def test_loading_is_joined_and_generations_only_go_up(shard: Shard, slow: Slow) -> None:
    wanted = await request(slow, 3)
    stores = await asyncio.gather(*(shard.load(wanted) for _ in range(3)))
    assert stores[0] is stores[1] is stores[2] is shard.current()
    assert await shard.load(wanted) is stores[0]
    with pytest.raises(FailedPrecondition, match="generation 1 is over, shard 0 has loaded 3"):
        await shard.load(await request(slow, 1))
    with pytest.raises(FailedPrecondition, match="generation 1 was named"):
        shard.held("run", 1)
    assert shard.held("run", 3) is stores[0]


async def test_a_load_that_fails_leaves_nothing_and_may_be_tried_again(shard: Shard, slow: Slow) -> None:
    wanted = await request(slow, 2)
    broken = pb.LoadRequest.FromString(wanted.SerializeToString())
    broken.checkpoint.pieces[0].size += 1
    with pytest.raises(Corrupt):
        await shard.load(broken)
    with pytest.raises(FailedPrecondition, match="loaded nothing yet"):
        shard.current()
    assert (await shard.load(wanted)).version == 0


async def test_closing_ends_what_goes_on(slow: Slow, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as work:
        made = Shard("run", 0, slow, tmp_path, work)
        store = await made.load(await request(slow))
        writing = asyncio.create_task(made.checkpoint(store, 0, "run/x"))
        waiting = asyncio.create_task(store.prepare(1, [(0, 0)]))
        await until(lambda: slow.uploads)
        await made.close()
        with pytest.raises(asyncio.CancelledError):
            await writing
        with pytest.raises(FailedPrecondition):
            await waiting
    assert not files(tmp_path)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()]
