"""A brain under load while parts of it die: what the callers see, and how soon it is whole again."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator

import numpy as np
import pytest

from encephalon.client import Brains
from encephalon.core.errors import Unavailable
from encephalon.core.inference import InferenceClient
from tests.load import steady_load
from tests.running import EXAMPLES, running_brain
from tests.servers import etcd_server
from tests.waiting import until

pytestmark = pytest.mark.timeout(180)

X = np.arange(8, dtype=np.float32).reshape(1, 8)
CALLERS = 4
STOP_S = 0.1
"""Within which a region stops working for a caller that is gone."""
SENSES = """
brain: senses
inputs:
  image: {datatype: FP32, shape: [-1, -1]}
  audio: {datatype: FP32, shape: [-1, -1]}
regions:
  visual: {network: diagnostics/001}
  auditory: {network: diagnostics/001}
  association: {network: diagnostics/002}
pathways:
  - {from: image, to: visual.x}
  - {from: audio, to: auditory.x}
  - {from: visual.y, to: association.a, optional: true, timeout_ms: 1000}
  - {from: auditory.y, to: association.b, optional: true, timeout_ms: 1000}
outputs:
  sum: association.y
"""


async def ask(brains: Brains) -> None:
    answer = await brains.infer("pair", left=X, right=X, timeout=10)
    np.testing.assert_array_equal(answer["sum"], X * 2)


async def test_of_two_replicas_one_is_killed_and_no_request_fails() -> None:
    async with running_brain(EXAMPLES / "pair.yaml", "--replicas", "first=2") as brain, brain.connect() as brains:
        await brain.until_replicas(4)
        async with steady_load(lambda: ask(brains), CALLERS) as load:
            await until(lambda: load.answered() > 100, within=20)
            dead = brain.kill("first-0")
            answered = load.answered()
            await until(lambda: load.answered() > answered + 300, within=30)
            await until(lambda: brain.pid("first-0") not in (None, dead), within=20, what="it was started again")
            await brain.until_replicas(4)
            answered = load.answered()
            await until(lambda: load.answered() > answered + 100, within=20)
        assert load.failures == []


async def test_the_only_replica_is_killed_and_errors_come_soon_name_it_and_end() -> None:
    async with running_brain(EXAMPLES / "pair.yaml") as brain, brain.connect() as brains:
        async with steady_load(lambda: ask(brains), CALLERS, pause_s=0.005) as load:
            await until(lambda: load.answered() > 50, within=20)
            killed = time.monotonic()
            brain.kill("join-0")
            await until(lambda: bool(load.failures), within=5, what="a caller is told")
            answered = load.answered()
            await until(lambda: load.answered() > answered + 100, within=30, what="the brain recovers without a hand")
        failed = [outcome for outcome in load.since(killed - 10) if outcome.error]
        assert max(outcome.took_s for outcome in failed) < 1.0
        assert all(isinstance(outcome.error, Unavailable) for outcome in failed), load.failures
        assert all("join" in str(outcome.error) for outcome in failed), load.failures


async def test_an_optional_sense_stops_and_the_brain_answers_with_the_mask() -> None:
    async with running_brain(SENSES) as brain, brain.connect() as brains:
        whole = await brains.infer("senses", image=X, audio=X)
        assert whole.missing == ()
        np.testing.assert_array_equal(whole["sum"], X * 2)
        brain.kill("auditory-0")

        async def answered_without() -> bool:
            answer = await brains.infer("senses", image=X, audio=X, timeout=5)
            np.testing.assert_array_equal(answer["sum"], X if answer.missing else X * 2)
            return answer.missing == ("auditory",)

        async def answered_whole() -> bool:
            return (await brains.infer("senses", image=X, audio=X, timeout=5)).missing == ()

        await until(answered_without, within=5, what="an answer without the auditory sense")
        await until(answered_whole, within=30, what="the sense is back")


@pytest.mark.slow
async def test_etcd_stops_for_ten_seconds_and_no_request_fails() -> None:
    async with etcd_server() as etcd:
        address = etcd.url.removeprefix("etcd://")
        arguments = ("--replicas", "first=2", "--etcd", address)
        async with running_brain(EXAMPLES / "pair.yaml", *arguments) as brain, brain.connect() as brains:
            await brain.until_replicas(4)
            async with steady_load(lambda: ask(brains), CALLERS, pause_s=0.01) as load:
                await until(lambda: load.answered() > 50, within=20)
                await etcd.stop()
                await asyncio.sleep(10)  # the length of the outage, which is what is tested
                await etcd.start()
                back = load.answered()
                await until(lambda: load.answered() > back + 200, within=30)
                # The store is truly followed again: a replica that dies now is replaced through it.
                dead = brain.kill("first-1")
                await until(lambda: brain.pid("first-1") not in (None, dead), within=30)
                await brain.until_replicas(4)
            assert load.failures == []


SLOW = """
brain: slow
inputs:
  x: {datatype: FP32, shape: [-1, -1]}
regions:
  first: {network: diagnostics/003, arguments: {delay_ms: 3000}, max_batch: 1}
  second: {network: diagnostics/003, arguments: {delay_ms: 3000}, max_batch: 1}
  join: {network: diagnostics/002}
pathways:
  - {from: x, to: first.x}
  - {from: x, to: second.x}
  - {from: first.y, to: join.a}
  - {from: second.y, to: join.b}
outputs:
  y: join.y
"""


class Observers:
    """Asks the two slow regions themselves what they have computed."""

    def __init__(self, clients: dict[str, InferenceClient]) -> None:
        self._clients = clients

    async def executed(self) -> int:
        """Batches that ended, over both regions: answered or given up."""
        counts = [await client.statistics(region, timeout_s=5) for region, client in self._clients.items()]
        return sum(statistics.execution_count for (statistics,) in counts)


@contextlib.asynccontextmanager
async def observed(brains: Brains) -> AsyncIterator[Observers]:
    async with contextlib.AsyncExitStack() as stack:
        clients = {}
        for region in (await brains.describe("slow")).regions:
            if region.name != "join":
                clients[region.name] = await stack.enter_async_context(InferenceClient(region.replicas[0].address))
        yield Observers(clients)


async def until_computing(brains: Brains, observers: Observers) -> None:
    async def sent() -> bool:
        regions = (await brains.describe("slow")).regions
        return sum(replica.outstanding for region in regions for replica in region.replicas) == 2

    await until(sent, within=10, what="both regions have the request")
    assert await observers.executed() == 0  # also a round trip: what was sent before it has arrived


async def stopped_after(observers: Observers) -> float:
    """Seconds from now until both regions compute no more."""
    left = time.monotonic()
    while await observers.executed() < 2:
        assert time.monotonic() < left + 5, "the regions go on for a caller that is gone"
    return time.monotonic() - left


@pytest.mark.slow
async def test_a_caller_that_cancels_takes_its_work_with_it() -> None:
    """The regions would compute for 3 s."""
    async with running_brain(SLOW) as brain, brain.connect() as brains, observed(brains) as observers:
        caller = asyncio.create_task(brains.infer("slow", x=X, timeout=60))
        await until_computing(brains, observers)
        caller.cancel()
        assert await stopped_after(observers) < STOP_S
        with pytest.raises(asyncio.CancelledError):
            await caller


async def test_a_caller_that_dies_takes_its_work_with_it() -> None:
    async with running_brain(SLOW) as brain, brain.connect() as brains, observed(brains) as observers:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", STRANGER, brain.address)
        await until_computing(brains, observers)
        process.kill()
        assert await stopped_after(observers) < STOP_S
        await process.wait()


STRANGER = """
import sys
import encephalon
import numpy as np

with encephalon.connect_blocking(sys.argv[1]) as brains:
    brains.infer("slow", x=np.ones((1, 8), np.float32), timeout=60)
"""
