"""A whole brain at its limits: four times what it can do, and ten thousand messages that are no requests."""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np
import pytest

from encephalon.core.inference import InferenceClient
from encephalon.core.wire import InferRequest, Tensor
from tests.bad_messages import Reception, flood, messages
from tests.overload import CAPACITY, DEADLINE_S, ROW_MS, overloaded, steady
from tests.running import RunningBrain, running_brain

pytestmark = pytest.mark.timeout(180)

MORE_MEMORY = 24 * 2**20
"""Of one process: allocator arenas grow a little, a leak of 10,000 messages would be seen."""
SECONDS = 6.0
MESSAGES = 10_000
BRAIN = """
brain: echo
inputs:
  x: {datatype: FP32, shape: [-1, -1]}
regions:
  first: {network: diagnostics/003, arguments: {delay_ms: %g, per: row}, max_batch: 4, mailbox: 256}
  second: {network: diagnostics/001}
pathways:
  - {from: x, to: first.x}
  - {from: first.y, to: second.x}
outputs:
  y: second.y
"""


async def ask(client: InferenceClient) -> None:
    request = InferRequest("echo", inputs=[Tensor.of("x", np.ones((1, 4), np.float32))])
    await client.infer(request, DEADLINE_S)


def grown(brain: RunningBrain, before: Mapping[str, int]) -> dict[str, float]:
    """MiB by which each process has grown; the same processes must still be there."""
    now = brain.rss()
    assert now.keys() == before.keys()
    return {name: (now[name] - before[name]) / 2**20 for name in now}


async def test_four_times_the_capacity() -> None:
    async with running_brain(BRAIN % ROW_MS) as brain, InferenceClient(brain.address) as client:
        await steady(lambda: ask(client), CAPACITY * 4, 1.0)
        before = brain.rss()
        tally = await overloaded(lambda: ask(client), CAPACITY * 4, SECONDS, CAPACITY * SECONDS)
        more = grown(brain, before)
    print(tally.report(), more)
    assert max(more.values()) * 2**20 < MORE_MEMORY, more


@pytest.mark.slow
async def test_ten_thousand_bad_messages() -> None:
    source = random.Random(20221105)
    async with running_brain(BRAIN % 0.0) as brain:
        pids = {name: brain.pid(name) for name in ("coordinator", "first-0", "second-0")}
        reception, bad = Reception(), list(messages(source, MESSAGES))
        await flood(brain.address, bad[:2000], source, reception)
        before = brain.rss()
        await flood(brain.address, bad[2000:], source, reception)
        more = grown(brain, before)
        reception.check(MESSAGES)
        assert max(more.values()) * 2**20 < MORE_MEMORY, more
        assert {name: brain.pid(name) for name in pids} == pids, "a process died and was started again"
        async with InferenceClient(brain.address) as client:
            await ask(client)
