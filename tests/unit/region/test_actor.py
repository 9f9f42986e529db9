"""The actor in this process, as a colocated brain calls it: tensors by reference, no server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from encephalon.core.errors import Cancelled, DeadlineExceeded, Internal, NotFound, Overloaded, Unavailable
from encephalon.core.wire import InferRequest, Tensor
from encephalon.library.areas import find_network
from encephalon.region import Config, RegionActor
from tests.waiting import until


@asynccontextmanager
async def region(network: str = "diagnostics/001", **more: Any) -> AsyncIterator[RegionActor]:
    area, _, code = network.partition("/")
    arguments = more.pop("arguments", {})
    async with RegionActor("echo", Config(network, arguments=arguments), find_network(area, code), **more) as actor:
        yield actor


def request(value: float = 1.0, rows: int = 1, **more: Any) -> InferRequest:
    return InferRequest("echo", inputs=[Tensor.of("x", np.full((rows, 3), value, np.float32))], **more)


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_identity_gives_the_very_bytes_that_came() -> None:
    async with region() as actor:
        asked = request()
        answer = await actor.infer(asked)
        assert np.shares_memory(answer.outputs[0].array, asked.inputs[0].array)
        assert answer.parameters["batch"] == 1


async def test_messages_with_and_without_an_optional_input_share_a_batch() -> None:
    """Join computes on the event loop by itself; in the worker it has to wait for its batch."""
    async with region("diagnostics/002", max_delay_s=0.1) as actor:
        actor.version.inline = False
        rng = np.random.default_rng(1)
        a, b = rng.random((2, 8, 3), dtype=np.float32)

        async def ask(row: int) -> np.ndarray:
            names = [("a",), ("b",), ("a", "b")][row % 3]
            inputs = [Tensor.of(name, {"a": a, "b": b}[name][row : row + 1]) for name in names]
            answer = await actor.infer(InferRequest("echo", inputs=inputs))
            sizes.append(int(answer.parameters["batch"]))  # type: ignore[arg-type]
            return answer.outputs[0].array

        sizes: list[int] = []
        answers = await asyncio.gather(*(ask(row) for row in range(8)))
    for row, answer in enumerate(answers):
        expected = [a[row], b[row], a[row] + b[row]][row % 3]
        assert np.array_equal(answer[0], expected)
    assert max(sizes) == 8


async def test_messages_of_unlike_shapes_go_in_separate_batches() -> None:
    async with region("diagnostics/003", arguments={"delay_ms": 5.0}) as actor:

        async def ask(width: int) -> tuple[int, ...]:
            x = Tensor.of("x", np.zeros((2, width), np.float32))
            answer = await actor.infer(InferRequest("echo", inputs=[x]))
            assert answer.parameters["batch"] == 6
            return answer.outputs[0].shape

        shapes = await asyncio.gather(*(ask(width) for width in (1, 2, 3) * 3))
    assert shapes == [(2, 1), (2, 2), (2, 3)] * 3


async def test_the_loop_goes_on_while_the_network_computes() -> None:
    async with region("diagnostics/003", arguments={"delay_ms": 200.0}, max_batch=1) as actor:
        longest, last = 0.0, time.monotonic()
        asking = asyncio.create_task(actor.infer(request()))
        while not asking.done():
            await asyncio.sleep(0.001)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        assert longest < 0.15


async def test_cancelling_stops_a_network_that_can_stop() -> None:
    async with region("diagnostics/003", arguments={"delay_ms": 500.0}, max_batch=1) as actor:
        asking = asyncio.create_task(actor.infer(request()))
        await until(lambda: actor._mailbox.busy)
        asking.cancel()
        await until(lambda: not actor._mailbox.busy, within=0.1)
        before = now()
        await actor.infer(request())
        assert now() - before > 0.45, "the next message has its full time"


async def test_a_batch_goes_on_while_somebody_waits_for_it() -> None:
    async with region("diagnostics/003", arguments={"delay_ms": 300.0}) as actor:
        first, second = (asyncio.create_task(actor.infer(request(value))) for value in (1.0, 2.0))
        await until(lambda: actor._mailbox.busy)
        first.cancel()
        assert (await second).outputs[0].array[0, 0] == 2.0


async def test_priority_goes_first() -> None:
    async with region("diagnostics/003", arguments={"delay_ms": 100.0}, max_batch=1) as actor:
        order: list[str] = []

        async def ask(name: str, **parameters: Any) -> None:
            await actor.infer(request(parameters=parameters))
            order.append(name)

        first = asyncio.create_task(ask("first"))
        await until(lambda: actor._mailbox.busy)
        await asyncio.gather(first, ask("usual"), ask("second", priority=2), ask("urgent", priority=1))
    assert order == ["first", "urgent", "second", "usual"]


async def test_deadlines() -> None:
    async with region("diagnostics/003", arguments={"delay_ms": 200.0}, max_batch=1) as actor:
        busy = [asyncio.create_task(actor.infer(request())) for _ in range(3)]
        await until(lambda: actor._mailbox.busy)
        before = now()
        with pytest.raises(Overloaded, match="deadline"):
            await actor.infer(request(), now() + 0.3)
        assert now() - before < 0.05
        with pytest.raises(DeadlineExceeded):
            await actor.infer(request(), now() - 1.0)
        await asyncio.gather(*busy)
        assert actor.statistics()[0].fail.count == 2


async def test_leaving_answers_what_was_admitted() -> None:
    async with region("diagnostics/003", arguments={"delay_ms": 50.0}, max_batch=1) as actor:
        admitted = [asyncio.create_task(actor.infer(request(float(n)))) for n in range(4)]
        await until(lambda: len(actor._mailbox) == 3)
        draining = asyncio.create_task(actor.drain())
        await until(lambda: not actor.ready())
        with pytest.raises(Unavailable, match="is leaving"):
            await actor.infer(request())
        await draining
        assert [task.result().outputs[0].array[0, 0] for task in admitted] == [0.0, 1.0, 2.0, 3.0]


async def test_stopping_does_not_wait_for_a_network_that_hangs() -> None:
    async with region("diagnostics/003", arguments={"delay_ms": 1500.0, "per": "row"}, max_batch=1) as actor:
        actor.version.cancelled = None  # a network that cannot stop
        asking = asyncio.create_task(actor.infer(request()))
        await until(lambda: actor._mailbox.busy)
        before = now()
    assert now() - before < 0.5
    with pytest.raises((Unavailable, Cancelled)):
        await asking


async def test_a_failing_start_raises_and_names_the_region() -> None:
    with pytest.raises(NotFound, match=r"version 1 \(diagnostics/009\) of region 'echo' was not loaded"):
        async with RegionActor("echo", Config("diagnostics/009"), find_network("diagnostics", "001")):
            pass


async def test_statistics_add_up() -> None:
    async with region("diagnostics/004", arguments={"trigger": 13.0}) as actor:
        for rows in (1, 2, 2):
            await actor.infer(request(1.0, rows))
        with pytest.raises(Internal):
            await actor.infer(request(13.0))
        (statistics,) = actor.statistics("echo", "1")
    assert (statistics.success.count, statistics.fail.count) == (3, 1)
    assert (statistics.inference_count, statistics.execution_count) == (5, 3)
    assert {rows: batch.compute_infer.count for rows, batch in statistics.batches.items()} == {1: 1, 2: 2}
    assert 0 < statistics.compute_infer.ns <= statistics.success.ns
