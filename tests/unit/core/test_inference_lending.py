"""Large tensors of a stream in shared memory: the answers are the same, and nothing stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from encephalon.core.errors import DeadlineExceeded, Unavailable
from encephalon.core.inference import InferenceClient, InferenceService, InferStream, MappedMemory
from encephalon.core.inference.lending import MAX_SLOTS
from encephalon.core.shared_memory import FOLDER, SharedMemory
from encephalon.core.wire import InferRequest, Tensor
from tests.unit.core.echo import Echo, served
from tests.waiting import until

kind: type[SharedMemory] = SharedMemory


@pytest.fixture(autouse=True, params=[SharedMemory, MappedMemory])
def _kind_of_memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test is run over both: read and written through descriptors, and mapped."""
    monkeypatch.setattr(sys.modules[__name__], "kind", request.param)


def tensor(value: float, rows: int = 40) -> Tensor:
    return Tensor.of("x_fp32", np.full((rows, 1000), value, np.float32))


def ours() -> set[str]:
    return {path.name for path in FOLDER.glob("encephalon-*") if not path.name.startswith("encephalon-test-")}


class Lent:
    """A server, what it maps, and a stream to it."""

    def __init__(self, models: Echo, memory: SharedMemory, stream: InferStream) -> None:
        self.models, self.memory, self.stream = models, memory, stream


@contextlib.asynccontextmanager
async def lending(folder: Path, prefixes: tuple[str, ...] = ("/encephalon-",)) -> AsyncIterator[Lent]:
    models, memory = Echo(), kind(prefixes)
    async with (
        served(InferenceService(models, shared_memory=memory), folder) as address,
        InferenceClient(address) as client,
        await client.open_stream(shared_memory=True) as stream,
    ):
        yield Lent(models, memory, stream)


async def test_answers_are_the_same_and_never_overwritten(tmp_path: Path) -> None:
    before = ours()
    async with lending(tmp_path) as lent:
        small = Tensor.of("x_int8", np.ones((40, 1), np.int8))
        kept = []
        for value in range(6):
            request = InferRequest("echo", id="mine", inputs=[tensor(value), small])
            answer = await lent.stream.infer(request, 10)
            assert answer.id == "mine"
            kept.append({each.name: each for each in answer.outputs})
            assert request.inputs == [tensor(value), small]
        for value, outputs in enumerate(kept):
            assert outputs["y_fp32"].array.min() == outputs["y_fp32"].array.max() == value
            assert outputs["y_int8"] == small.renamed("y_int8")
        # One slot for inputs and, once the size of the answer was known, one for the outputs of each answer that is
        # still held; those of forgotten answers are used again. All are unlinked already.
        assert len(lent.memory.status()) == 6
        kept.clear()
        del answer, outputs
        for value in range(6):
            assert (await lent.stream.infer(InferRequest("echo", inputs=[tensor(value)]), 10)).outputs
        assert len(lent.memory.status()) == 6
        await until(lambda: ours() <= before)
        assert "encephalon.output_region" not in lent.models.requests[-1].parameters
    assert lent.memory.status() == []


async def test_many_at_once(tmp_path: Path) -> None:
    async with lending(tmp_path) as lent:

        async def ask(value: int) -> None:
            answer = await lent.stream.infer(InferRequest("echo", inputs=[tensor(value, 20 + value % 30)]), 30)
            assert set(answer.outputs[0].array.ravel().tolist()) == {value}

        for _ in range(3):
            await asyncio.gather(*map(ask, range(80)))
        assert len(lent.memory.status()) <= MAX_SLOTS


async def test_a_slot_is_not_used_again_before_the_server_has_answered(tmp_path: Path) -> None:
    async with lending(tmp_path) as lent:
        with pytest.raises(DeadlineExceeded):
            await lent.stream.infer(InferRequest("echo", parameters={"hold": True}, inputs=[tensor(1)]), 0.05)
        answer = await lent.stream.infer(InferRequest("echo", inputs=[tensor(2)]), 10)
        assert answer.outputs[0].array.max() == 2
        await until(lambda: lent.models.running == 0)


async def test_outputs_that_do_not_fit_travel_in_the_message(tmp_path: Path) -> None:
    async with lending(tmp_path) as lent:
        for rows in (20, 20, 400, 400, 20):
            answer = await lent.stream.infer(InferRequest("echo", inputs=[tensor(rows, rows)]), 10)
            assert answer.outputs[0] == tensor(rows, rows).renamed("y_fp32")


async def test_a_server_that_allows_no_memory_gets_messages(tmp_path: Path) -> None:
    before = ours()
    async with lending(tmp_path, ("/something-else",)) as lent:
        for _ in range(2):
            assert (await lent.stream.infer(InferRequest("echo", inputs=[tensor(3)]), 10)).outputs[0].array.max() == 3
        assert lent.memory.status() == []
    await until(lambda: ours() <= before)


async def test_closing_in_the_middle(tmp_path: Path) -> None:
    async with lending(tmp_path) as lent:
        waiting = asyncio.create_task(
            lent.stream.infer(InferRequest("echo", parameters={"hold": True}, inputs=[tensor(1)]), 10)
        )
        await until(lambda: lent.models.running == 1)
        await lent.stream.close()
        with pytest.raises(Unavailable):
            await waiting
        await until(lambda: not lent.memory.status())


CALLER = """
import asyncio, sys
import numpy as np
from encephalon.core.inference import InferenceClient
from encephalon.core.wire import InferRequest, Tensor

async def main(address):
    async with InferenceClient(address) as client, await client.open_stream(shared_memory=True) as stream:
        large = Tensor.of("x_fp32", np.zeros((40, 1000), np.float32))
        await stream.infer(InferRequest("echo", parameters={"hold": True}, inputs=[large]), 60)

asyncio.run(main(sys.argv[1]))
"""


async def test_a_caller_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    before, models, memory = ours(), Echo(), kind(("/encephalon-",))
    async with served(InferenceService(models, shared_memory=memory), tmp_path) as address:
        caller = subprocess.Popen([sys.executable, "-c", CALLER, address])  # noqa: ASYNC220 - returns at once
        try:
            await until(lambda: models.running == 1, within=20)
            assert len(memory.status()) == 1
        finally:
            os.kill(caller.pid, signal.SIGKILL)
            await asyncio.to_thread(caller.wait)
        await until(lambda: not memory.status() and models.cancelled == 1)
    await until(lambda: ours() <= before)


async def test_large_requests_need_no_task_once_their_memory_is_there(tmp_path: Path) -> None:
    async with lending(tmp_path) as lent:
        first = lent.stream.submit(InferRequest("echo", inputs=[tensor(1)]), 10)
        assert isinstance(first, asyncio.Task)
        assert (await first).outputs == [tensor(1).renamed("y_fp32")]
        # The size of the answer is known now, and so memory for the next one's is made.
        await lent.stream.infer(InferRequest("echo", inputs=[tensor(2)]), 10)
        request = InferRequest("echo", inputs=[tensor(3)])
        lender = lent.stream._lender
        assert lender is not None
        await until(lambda: lender.has_room_for(request))
        answer = lent.stream.submit(request, 10)
        assert not isinstance(answer, asyncio.Task)
        assert (await answer).outputs == [tensor(3).renamed("y_fp32")]


async def test_what_is_submitted_and_cancelled_gives_its_memory_back(tmp_path: Path) -> None:
    async with lending(tmp_path) as lent:
        for value in range(3):
            await lent.stream.infer(InferRequest("echo", inputs=[tensor(value)]), 10)
        slots = len(lent.memory.status())
        for turn in range(1, 4):
            answer = lent.stream.submit(InferRequest("echo", parameters={"hold": True}, inputs=[tensor(turn)]), 10)
            await until(lambda: lent.models.running == 1)
            answer.cancel()
            await until(lambda turn=turn: lent.models.cancelled == turn)  # type: ignore[misc]
            # An answer behind the one of the cancelled request: by then its slots are free again.
            await lent.stream.infer(InferRequest("echo", inputs=[Tensor.of("x_int8", np.ones((1, 1), np.int8))]), 10)
        assert len(lent.memory.status()) <= slots + 1
