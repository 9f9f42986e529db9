from __future__ import annotations

import asyncio
import time

import pytest

from encephalon.coordinator.breaker import BreakerState
from encephalon.coordinator.link import LinkOptions
from encephalon.coordinator.replicas import InProcessReplica
from encephalon.core.errors import EncephalonError, FailedPrecondition, Internal, Overloaded, Unavailable
from tests.unit.coordinator.brains import Region, ask, hang, link, pair, replica, run, value
from tests.waiting import until


def dead(_):
    raise Unavailable("gone")


class Flaky(Region):
    def __init__(self) -> None:
        super().__init__(self.perhaps)
        self.error: EncephalonError | None = None

    def perhaps(self, _):
        if self.error:
            raise self.error


async def ask_pair(first, brain=None, seconds=5.0, **parameters):
    request = ask(left=1, right=2)
    request.parameters = parameters
    return await run(brain or pair(), others() | {"first": first}, request, seconds)


def others():
    return {"second": link("second", Region()), "join": link("join", Region())}


async def test_unavailable_is_asked_again_elsewhere():
    good = Region()
    first = link("first", Region(dead), good)
    for _ in range(20):
        assert value(await ask_pair(first), "sum") == 3
    assert len(good.asked) == 20


async def test_a_failing_replica_is_set_aside_and_comes_back():
    flaky, good = Flaky(), Region()
    flaky.error = Unavailable("gone")
    first = link("first", flaky, good)
    for _ in range(50):
        await ask_pair(first)
    assert len(flaky.asked) <= 6
    assert replica(first).ejected
    flaky.error = None
    await until(lambda: not replica(first).ejected, within=1)


async def test_an_internal_error_is_not_asked_again():
    flaky = Flaky()
    flaky.error = Internal("the network failed")
    with pytest.raises(Internal):
        await ask_pair(link("first", flaky))
    assert len(flaky.asked) == 1


async def test_overloaded_is_asked_again_only_elsewhere():
    busy = Flaky()
    busy.error = Overloaded("full")
    with pytest.raises(Overloaded, match="region 'first'"):
        await ask_pair(link("first", busy))
    assert len(busy.asked) == 1
    assert value(await ask_pair(link("first", busy, Region())), "sum") == 3


async def test_retries_are_bounded_by_the_pathway():
    flaky = Flaky()
    flaky.error = Unavailable("gone")
    with pytest.raises(Unavailable, match="region 'first'"):
        await ask_pair(link("first", flaky), pair("retries: 0"))
    assert len(flaky.asked) == 1


async def test_a_request_waits_for_a_replica_that_comes():
    first = link("first", options=LinkOptions(grace_s=2))
    asyncio.get_running_loop().call_later(0.05, first.add, InProcessReplica("new", Region()))
    assert value(await ask_pair(first), "sum") == 3


async def test_the_grace_is_never_longer_than_the_deadline():
    first = link("first", options=LinkOptions(grace_s=5))
    started = time.monotonic()
    with pytest.raises(EncephalonError, match="first"):
        await ask_pair(first, seconds=0.05)
    assert time.monotonic() - started < 1


async def test_a_slow_replica_is_hedged():
    slow, quick = Region(hang), Region()
    first = link("first", slow, quick)
    # The slow one looks idle and quick, so that it is chosen first.
    replica(first, 1).outstanding = 3
    response = await ask_pair(first, pair("hedge_ms: 20"))
    assert value(response, "sum") == 3
    await until(lambda: slow.cancelled == 1, within=0.1)
    assert first.metrics.hedges.value >= 1


async def test_the_breaker_refuses_at_once_and_closes_when_a_replica_comes():
    first = link("first", options=LinkOptions(grace_s=0.01))
    for _ in range(10):
        with pytest.raises(Unavailable):
            await ask_pair(first)
    assert first.breaker.state is BreakerState.OPEN
    started = time.perf_counter()
    with pytest.raises(Unavailable, match="region 'first' failed too often"):
        await ask_pair(first)
    assert time.perf_counter() - started < 0.01
    first.add(InProcessReplica("new", Region()))
    assert value(await ask_pair(first), "sum") == 3


async def test_a_sequence_stays_on_its_replica():
    regions = [Region() for _ in range(4)]
    first = link("first", *regions)
    for number in range(1, 9):
        await ask_pair(first, sequence_id=number, sequence_start=True)
        for _ in range(5):
            await ask_pair(first, sequence_id=number)
    for region in regions:
        ids = [request.parameters["sequence_id"] for request in region.asked]
        assert all(ids.count(number) == 6 for number in set(ids))
    await ask_pair(first, sequence_id=1, sequence_end=True)
    assert len(first.sequences) == 7


async def test_a_lost_sequence_says_so_and_is_not_sent_again():
    flaky = Flaky()
    first = link("first", flaky)
    await ask_pair(first, sequence_id=5, sequence_start=True)
    first.add(InProcessReplica("other", other := Region()))
    flaky.error = Unavailable("gone")
    with pytest.raises(FailedPrecondition, match="sequence 5 is lost"):
        await ask_pair(first, sequence_id=5)
    assert not other.asked


async def test_a_draining_replica_finishes_and_gets_nothing_new():
    free = asyncio.Event()
    old, new = Region(lambda _: free.wait()), Region()
    first = link("first", old)
    running = asyncio.ensure_future(ask_pair(first))
    await until(lambda: old.asked, within=1)
    first.add(InProcessReplica("new", new))
    first.drain("first-0")
    assert value(await ask_pair(first), "sum") == 3
    free.set()
    assert value(await running, "sum") == 3
    assert len(old.asked) == len(new.asked) == 1
