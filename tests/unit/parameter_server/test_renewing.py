"""A control node that has come back lets the shards go on with what they hold, and nothing of before gets in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.core.errors import FailedPrecondition
from encephalon.learning.checkpoint import write_initial
from encephalon.learning.layout import planned
from encephalon.parameter_server.decisions import Decision
from encephalon.parameter_server.shard import Shard
from encephalon.state.folder import Folder
from tests.unit.parameter_server.shards import TENSORS, gradients, optimizer, push


@pytest.fixture
async def shard(tmp_path: Path) -> AsyncIterator[Shard]:
    async with Folder(tmp_path / "objects", deadline_s=10) as objects:
        with ThreadPoolExecutor(1) as work:
            made = Shard("run", 0, objects, tmp_path, work)
            zeros = [(each, torch.zeros(tuple(each.shape))) for each in TENSORS]
            first = request(1)
            first.checkpoint.CopyFrom(await write_initial(objects, "run/0", zeros))
            await made.load(first)
            yield made
            await made.close()


def request(generation: int, shards: int = 1) -> pb.LoadRequest:
    layout = planned(TENSORS, shards)
    return pb.LoadRequest(run="run", generation=generation, layout=layout, optimizer=optimizer(lr=1.0))


async def test_what_was_learned_stays_and_what_waits_is_forgotten(shard: Shard) -> None:
    store = shard.current()
    push(store, gradients(1), 1)
    await store.prepare(1, [(0, 0)])
    await store.decide(1, Decision.APPLY, version=1, note=b"first")
    learned = store.flat.clone()
    push(store, gradients(2), 2)
    waiting = asyncio.create_task(store.reached(1, 2))
    assert (await shard.load(request(2))) is store
    with pytest.raises(FailedPrecondition, match="generation"):
        await waiting
    assert (store.version, store.generation) == (1, 2)
    assert torch.equal(store.flat, learned)
    assert [each.note for each in store.decided] == [b"first"]
    with pytest.raises(FailedPrecondition, match="generation 1 is over"):
        store.contribution(1, 2, 0, 0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await store.prepare(2, [(0, 0)])  # what was pushed before does not count
    assert store.buffered_bytes == 0
    await shard.load(request(2))
    assert store.generation == 2


async def test_another_layout_cannot_be_gone_on_with(shard: Shard) -> None:
    with pytest.raises(FailedPrecondition, match="another layout"):
        await shard.load(request(2, shards=2))
    assert shard.current().generation == 1


async def test_a_decision_that_was_on_its_way_is_taken_before(shard: Shard) -> None:
    store = shard.current()
    push(store, gradients(1), 1)
    await store.prepare(1, [(0, 0)])
    deciding = asyncio.create_task(store.decide(1, Decision.APPLY, version=1))
    await asyncio.sleep(0)
    assert (await shard.load(request(2))).version == 1, "not told before it is so"
    assert (await deciding)[0] == 1
