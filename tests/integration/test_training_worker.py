"""Two workers, a shard and a control node, all real, in one process: they learn, one leaves, a stranger is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.core.errors import InvalidInput
from encephalon.learning.checkpoint import read_tensors
from encephalon.library.open import open_library
from encephalon.parameter_server.lifetime import running
from encephalon.parameter_server.settings import ShardSettings
from encephalon.training.leading import lead
from encephalon.training.runs import RunSettings, keys_of
from encephalon.training.settings import ControlSettings
from encephalon.training.worker.service import Stores, stores_of, working
from encephalon.training.worker.settings import WorkerSettings
from tests.training.brains import SMALL, add_brain, add_data
from tests.waiting import until

RUN = "learns"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """A worker's process is told to be deterministic; other tests are not."""
    yield
    torch.set_deterministic_debug_mode("default")
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]


@dataclass
class Place:
    folder: Path
    settings: RunSettings
    stores: Stores

    def worker(self, name: str, **more: Any) -> WorkerSettings:
        return WorkerSettings(run=RUN, worker=name, **addresses(self.folder), **more)

    async def state(self) -> pb.RunState:
        entry = await self.stores.key_value.get(keys_of("default", RUN)[1])
        return pb.RunState.FromString(entry.value) if entry is not None else pb.RunState()


def addresses(folder: Path) -> dict[str, Any]:
    return {"state": f"sqlite://{folder}/state.db", "objects": f"folder://{folder}/objects"}


@asynccontextmanager
async def placed(folder: Path, **more: Any) -> AsyncIterator[Place]:
    """With a brain, its data and the settings of a run, and a shard."""
    torch.set_num_threads(1)
    async with open_library(**addresses(folder), cache_dir=folder / "cache", seed=False) as library:
        brain = await add_brain(library, SMALL, folder)
        data = await add_data(library, SMALL, 200)
    settings = RunSettings.checked(
        **{"run": RUN, "brain": brain, "data": data, "workers": 2, "batch_size": 30, "plan": "fixed"}
        | {"epochs": 3, "optimizer_arguments": {"lr": 0.01}, **more}
    )
    cache = folder / "cache"
    shard = ShardSettings(run=RUN, shard=0, folder=folder / "shard", **addresses(folder))
    told = WorkerSettings(run=RUN, worker="none", library_cache=cache, **addresses(folder))
    async with stores_of(told) as stores, running(shard):
        await stores.key_value.put(keys_of("default", RUN)[0], settings.model_dump_json().encode())
        yield Place(folder, settings, stores)


async def finished(*arguments: Any, **more: Any) -> dict[str, str]:
    """Nothing is put into the library."""
    return {}


@asynccontextmanager
async def led(place: Place) -> AsyncIterator[asyncio.Task[None]]:
    settings = ControlSettings(run=RUN, folder=place.folder / "run", grace_s=0.5, **addresses(place.folder))
    task = asyncio.create_task(lead(settings, place.stores.key_value, place.stores.objects, finished))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_two_workers_learn_together(tmp_path: Path) -> None:
    async with placed(tmp_path) as place, led(place) as leading, AsyncExitStack() as stack:
        names = ("worker-0", "worker-1")
        workers = [
            await stack.enter_async_context(working(place.worker(name), place.settings, place.stores)) for name in names
        ]
        sentences = await asyncio.gather(*(worker.run() for worker in workers))
        await leading
        state = await place.state()
        assert state.state == pb.RunState.STATE_SUCCEEDED, state.sentence
        assert all(sentences)
        losses = [each.loss for each in state.evaluations if each.purpose == "validation"]
        assert len(losses) == 3
        assert losses[-1] < losses[0]
        assert {"class"} == set(state.evaluations[-1].accuracy)
        assert state.checkpoint.version == 18  # 180 samples of 200, 30 at a time, three times
        weights = await read_tensors(place.stores.objects, state.checkpoint, tmp_path)
        assert next(iter(weights)) == "net/layers.0.weight"


async def test_one_leaves_and_a_stranger_is_refused(tmp_path: Path) -> None:
    async with placed(tmp_path, epochs=2) as place, led(place) as leading, AsyncExitStack() as stack:
        one, other = [
            await stack.enter_async_context(working(place.worker(name, at_once=4), place.settings, place.stores))
            for name in ("worker-0", "worker-1")
        ]
        staying, leaving = asyncio.create_task(one.run()), asyncio.create_task(other.run())
        await until(lambda: other.joined)
        other.leave()
        assert await leaving == ""
        wide = place.settings.model_copy(update={"freeze": (), "seed": 9})
        async with working(place.worker("stranger"), wide, place.stores) as stranger:
            with pytest.raises(InvalidInput, match="worker 'stranger' would train another model"):
                await stranger.run()
        assert await staying
        await leading
        assert (await place.state()).state == pb.RunState.STATE_SUCCEEDED
