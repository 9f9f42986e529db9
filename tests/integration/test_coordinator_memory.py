"""Large tensors travel to replicas on this machine through shared memory, and nothing of it stays behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from encephalon.coordinator.remote import RemoteReplica
from encephalon.core.inference.names import STREAM_REGION_PREFIX
from encephalon.core.shared_memory import SharedMemory
from encephalon.core.wire import InferRequest, Tensor
from tests.coordinated import Standin, served
from tests.waiting import until

MEBIBYTE = 1 << 20


class Bench:
    """A stand-in that takes shared memory, and a replica that lends it."""

    def __init__(self, standin: Standin, memory: SharedMemory, replica: RemoteReplica) -> None:
        self.standin, self.memory, self.replica = standin, memory, replica

    async def ask(self, value: float, nbytes: int = MEBIBYTE) -> np.ndarray:
        array = np.full((1, nbytes // 4), value, np.float32)
        deadline = asyncio.get_running_loop().time() + 5
        request = InferRequest("echo", inputs=[Tensor.of("x", array)])
        response = await self.replica.send(request, deadline)
        assert not response.shared_outputs
        return response.outputs[0].array

    @property
    def lent(self) -> int:
        return len(list(self.memory))


def left_behind() -> list[str]:
    return [path.name for path in Path("/dev/shm").iterdir() if path.name.startswith(STREAM_REGION_PREFIX)]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    standin, memory = Standin(), SharedMemory(["/encephalon-"])
    async with served(standin, memory=memory) as address:
        replica = RemoteReplica("one", [address], "echo", 64 << 20, share=True)
        assert await replica.probe()
        yield Bench(standin, memory, replica)
        await replica.close()
    await until(lambda: not left_behind())


async def test_large_tensors_are_lent_and_small_ones_sent(bench: Bench) -> None:
    assert (await bench.ask(1.0, nbytes=64))[0, 0] == 1
    assert bench.lent == 0
    for value in range(5):
        assert (await bench.ask(float(value)) == value).all()
    assert 0 < bench.lent <= 2
    await until(lambda: not left_behind())


async def test_many_at_once_are_never_mixed(bench: Bench) -> None:
    answers = await asyncio.gather(*(bench.ask(float(value)) for value in range(24)))
    for value, answer in enumerate(answers):
        assert (answer == value).all()
    assert bench.lent > 0


async def test_a_cancelled_request_spoils_no_later_one(bench: Bench) -> None:
    await bench.ask(1.0)
    bench.standin.hanging = True
    asking = asyncio.ensure_future(bench.ask(2.0))
    await until(lambda: bench.standin.asked == 2)
    asking.cancel()
    await until(lambda: bench.standin.cancelled == 1)
    bench.standin.hanging = False
    assert (await bench.ask(3.0) == 3).all()


async def test_a_replica_that_allows_no_memory_gets_messages() -> None:
    memory = SharedMemory(["/others-"])
    async with served(Standin(), memory=memory) as address:
        replica = RemoteReplica("one", [address], "echo", 64 << 20, share=True)
        assert await replica.probe()
        assert (await Bench(Standin(), memory, replica).ask(4.0) == 4).all()
        assert list(memory) == []
        await replica.close()
    await until(lambda: not left_behind())
