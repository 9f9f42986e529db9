"""A worker drives a process per region: the run comes to what one in one piece does, also when a region dies."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.discovery import resolve
from encephalon.learning.checkpoint import read_tensors
from encephalon.library.open import open_library
from encephalon.library.records import Reference
from encephalon.local.training.given import brain_record
from encephalon.parameter_server.lifetime import running as shard_running
from encephalon.parameter_server.settings import ShardSettings
from encephalon.region.learning.lifetime import running as region_running
from encephalon.region.learning.settings import LearningRegionSettings
from encephalon.state import KeyValue
from encephalon.training.leading import lead
from encephalon.training.runs import INSTANCES, RunSettings, keys_of
from encephalon.training.settings import ControlSettings
from encephalon.training.worker.service import stores_of, working
from encephalon.training.worker.settings import WorkerSettings
from tests.training.brains import SMALL, add_data
from tests.training.reference import distance
from tests.waiting import until

RUN = "pipelined"
CHAIN = """
brain: chain
inputs: {x: {datatype: FP32, shape: [-1, 16]}}
regions:
  front: {network: diagnostics/005, arguments: {inputs: 16, outputs: 8, width: 12, seed: 1}}
  back: {network: diagnostics/005, arguments: {inputs: 8, outputs: 4, width: 12, seed: 2}}
pathways:
  - {from: x, to: front.x}
  - {from: front.y, to: back.x}
outputs: {class: back.probabilities}
"""
REGIONS = ("front", "back")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """A worker's process is told to be deterministic; other tests are not."""
    yield
    torch.set_deterministic_debug_mode("default")
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]


def addresses(folder: Path) -> dict[str, Any]:
    return {"state": f"sqlite://{folder}/state.db", "objects": f"folder://{folder}/objects"}


async def learned(
    folder: Path, regions: Any = None, *, meanwhile: Any = None, workers: int = 1, **more: Any
) -> dict[str, Tensor]:
    """What a whole run comes to. `regions` starts those of a worker; `meanwhile` is told the store."""
    torch.set_num_threads(1)
    await asyncio.to_thread(folder.mkdir)
    async with open_library(**addresses(folder), cache_dir=folder / "cache", seed=False) as library:
        (folder / "chain.yaml").write_text(CHAIN)
        brain = str(Reference.of((await brain_record(library, folder / "chain.yaml")).id))
        data = await add_data(library, SMALL, 200)
    settings = RunSettings.checked(
        **{"run": RUN, "brain": brain, "data": data, "workers": workers, "batch_size": 30, "plan": "fixed"}
        | {"epochs": 2, "optimizer": "SGD", "optimizer_arguments": {"lr": 0.05, "momentum": 0.9}, "micro_batch": 4}
        | {"pipeline": regions is not None, **more}
    )
    names = [f"worker-{number}" for number in range(workers)]
    own = [WorkerSettings(run=RUN, worker=name, library_cache=folder / "cache", **addresses(folder)) for name in names]
    control = ControlSettings(run=RUN, folder=folder / "run", grace_s=0.5, **addresses(folder))
    async with AsyncExitStack() as stack:
        stores = await stack.enter_async_context(stores_of(own[0]))
        shard = ShardSettings(run=RUN, shard=0, folder=folder / "shard", **addresses(folder))
        await stack.enter_async_context(shard_running(shard))
        await stores.key_value.put(keys_of("default", RUN)[0], settings.model_dump_json().encode())
        for name in names if regions is not None else ():
            await stack.enter_async_context(regions(folder, name))
        leading = asyncio.create_task(lead(control, stores.key_value, stores.objects, recorded))
        stack.callback(leading.cancel)
        working_ = [await stack.enter_async_context(working(each, settings, stores)) for each in own]
        running = [asyncio.create_task(worker.run()) for worker in working_]
        if meanwhile is not None:
            await meanwhile(stores.key_value)
        await asyncio.gather(*running, leading)
        entry = await stores.key_value.get(keys_of("default", RUN)[1])
        assert entry is not None
        state = pb.RunState.FromString(entry.value)
        assert state.state == pb.RunState.STATE_SUCCEEDED, state.sentence
        return await read_tensors(stores.objects, state.checkpoint, folder)


async def recorded(*arguments: Any, **more: Any) -> dict[str, str]:
    """Nothing is put into the library."""
    return {}


@asynccontextmanager
async def in_this_process(folder: Path, worker: str) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for region in REGIONS:
            settings = LearningRegionSettings(run=RUN, worker=worker, region=region, **addresses(folder))
            await stack.enter_async_context(region_running(settings))
        yield


class Processes:
    def __init__(self) -> None:
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.folder = Path()

    def start(self, worker: str, region: str) -> None:
        words = ["-m", "encephalon.region.learning", "--run", RUN, "--worker", worker, "--region", region]
        stores = {f"ENCEPHALON_{name.upper()}": str(url) for name, url in addresses(self.folder).items()}
        with (self.folder / f"{worker}.{region}.log").open("ab") as log:
            self.running[f"{worker}.{region}"] = subprocess.Popen(
                [sys.executable, *words, "--threads", "1"], env={**os.environ, **stores}, stdout=log, stderr=log
            )

    async def kill(self, name: str) -> None:
        process = self.running.pop(name)
        process.kill()
        await asyncio.to_thread(process.wait)

    @asynccontextmanager
    async def of(self, folder: Path, worker: str) -> AsyncIterator[None]:
        self.folder = folder
        for region in REGIONS:
            self.start(worker, region)
        try:
            yield
        finally:
            for name in [name for name in self.running if name.startswith(worker)]:
                await self.kill(name)


@pytest.mark.timeout(120)
async def test_a_pipelined_run_comes_to_what_a_run_in_one_piece_does(tmp_path: Path) -> None:
    whole = await learned(tmp_path / "whole", epochs=1)
    found = await learned(tmp_path / "pipelined", in_this_process, epochs=1)
    assert found.keys() == whole.keys()
    assert distance(found, whole) < 1e-5
    assert next(iter(whole)) == "front/layers.0.weight"


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_two_pipelines_lose_a_region_and_come_to_the_same(tmp_path: Path) -> None:
    quiet = await learned(tmp_path / "quiet", Processes().of, workers=2, epochs=40)
    processes = Processes()

    async def killing(store: KeyValue) -> None:
        async def state() -> pb.RunState:
            entry = await store.get(keys_of("default", RUN)[1])
            return pb.RunState.FromString(entry.value) if entry is not None else pb.RunState()

        async def version() -> int:
            return (await state()).checkpoint.version

        await until(version, within=90.0, what="a checkpoint")
        await processes.kill("worker-0.back")
        processes.start("worker-0", "back")

        async def back() -> bool:
            found = await resolve(store, "default", INSTANCES + RUN, "worker-0.back")
            return bool(found)

        await until(back, within=60.0, what="the region is announced")
        assert (await state()).state == pb.RunState.STATE_RUNNING

    found = await learned(
        tmp_path / "killed", processes.of, meanwhile=killing, workers=2, epochs=40, checkpoint_steps=5
    )
    assert distance(found, quiet) == 0.0
