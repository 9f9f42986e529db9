"""The networks of a region side by side: loaded beside each other, asked by name, let go when nobody needs them."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from encephalon.core.errors import FailedPrecondition, Internal, NotFound, Unavailable
from encephalon.core.tasks import background
from encephalon.core.wire import InferRequest, Tensor
from encephalon.library.areas import find_network
from encephalon.library.brains import Region, identity_of, parse_manifest
from encephalon.region import Config, RegionActor
from encephalon.region.following import FollowingRegion
from encephalon.region.group import RegionGroup
from tests.regions import manifest
from tests.waiting import until


def region(network: str = "diagnostics/001", **arguments: Any) -> Region:
    return parse_manifest(manifest(network, arguments=arguments)).region("echo")


def actor(region: Region, identity: str) -> RegionActor:
    area, _, code = region.network.partition("/")
    config = Config(region.network, region.weights, region.arguments, version=identity)
    return RegionActor("echo", config, find_network(area, code))


@asynccontextmanager
async def grouped(make: Callable[[Region, str], RegionActor] = actor) -> AsyncIterator[RegionGroup]:
    group = RegionGroup("echo", make, spare_s=0.8, part_s=0.4)
    async with background("let networks go", group.keep()):
        try:
            yield group
        finally:
            await group.stop()


def request(version: str = "", value: float = 1.0) -> InferRequest:
    return InferRequest("echo", version, inputs=[Tensor.of("x", np.full((1, 3), value, np.float32))])


async def answer(model: FollowingRegion, version: str = "") -> tuple[str, float]:
    response = await model.infer(request(version))
    return response.model_version, float(response.outputs[0].array[0, 0])


ONE, TWO = region(offset=1.0), region(offset=2.0)
FIRST, SECOND = identity_of(ONE), identity_of(TWO)


async def test_both_answer_under_their_names_while_one_follows_the_other() -> None:
    async with grouped() as group:
        model = FollowingRegion(group, "brain:test@production")
        for _ in range(2):
            with pytest.raises(Unavailable, match="serves no network: it is loading"):
                await model.infer(request())
            group.want(ONE)
        await group.settled()
        assert await answer(model) == (FIRST, 2.0)
        with pytest.raises(NotFound, match=f"has no version '{SECOND}'; it has {FIRST}"):
            await model.infer(request(SECOND))
        group.want(TWO, [ONE])
        await group.settled()
        assert await answer(model) == (SECOND, 3.0)
        assert await answer(model, FIRST) == (FIRST, 2.0)
        assert model.model_ready("echo", FIRST)
        assert {(entry.version, entry.state) for entry in model.index()} == {(FIRST, "READY"), (SECOND, "READY")}
        assert [found.version for found in model.statistics("echo")] == [FIRST, SECOND]
        assert group.inline
        assert model.infer_now(request(FIRST)) is not None
        for change in (model.load, model.unload):
            with pytest.raises(FailedPrecondition, match="follows brain:test@production of the library"):
                await change("echo", {})


async def test_what_nobody_wants_or_asks_goes_and_what_is_wanted_again_stays() -> None:
    async with grouped() as group:
        model = FollowingRegion(group, "brain:test@production")
        group.want(ONE)
        await group.settled()
        first = group.actors[FIRST]
        group.want(TWO)
        group.want(ONE)
        await until(lambda: SECOND in group.actors or not group._loading)
        group.want(TWO)
        await until(lambda: SECOND in group.actors)
        group.want(ONE)
        assert group.actors[FIRST] is first, "it was never let go"
        await until(lambda: SECOND not in group.actors)
        assert await answer(model, SECOND) == (SECOND, 3.0), "whom the news has not reached is still answered"
        await until(lambda: group.find(SECOND) is None)
        with pytest.raises(NotFound):
            await model.infer(request(SECOND))
        group.want(TWO)
        await until(lambda: SECOND in group.actors)
        assert await answer(model) == (SECOND, 3.0)


async def test_what_is_still_asked_is_kept_though_nobody_says_so() -> None:
    async with grouped() as group:
        model = FollowingRegion(group, "brain:test@production")
        group.want(TWO, [ONE])
        await group.settled()
        group.want(TWO)
        end = asyncio.get_running_loop().time() + 1.6
        while asyncio.get_running_loop().time() < end:
            assert await answer(model, FIRST) == (FIRST, 2.0)
            await asyncio.sleep(0.05)
        assert FIRST in group.actors
        await until(lambda: FIRST not in group.actors)


async def test_what_cannot_be_loaded_says_why_and_changes_nothing() -> None:
    broken = region("diagnostics/004")
    async with grouped() as group:
        group.want(broken)
        with pytest.raises(FailedPrecondition, match="warming up with 1 rows failed"):
            await group.settled()
        group.want(ONE)
        await group.settled()
        group.want(broken, [ONE])
        await until(lambda: group.failed)
        assert "warming up" in group.failed[identity_of(broken)]
        model = FollowingRegion(group, "brain:test@production")
        assert await answer(model) == (FIRST, 2.0)
        entries = {entry.version: entry for entry in model.index()}
        assert entries[identity_of(broken)].state == "UNAVAILABLE"
        assert "warming up" in entries[identity_of(broken)].reason
        group.want(ONE)
        assert not group.failed


async def test_what_is_let_go_leaves_no_weights_behind() -> None:
    """Though the collector has been told that what was loaded first stays."""
    async with grouped() as group:
        group.want(ONE)
        await group.settled()
        network = weakref.ref(group.actors[FIRST].version.network)
        gc.collect()
        gc.freeze()
        try:
            group.want(TWO)
            await until(lambda: group.find(FIRST) is None)
            await until(lambda: network() is None)
        finally:
            gc.unfreeze()


async def test_a_failure_that_nobody_has_foreseen_keeps_nobody_waiting(caplog: pytest.LogCaptureFixture) -> None:
    def make(region: Region, identity: str) -> RegionActor:
        if identity == SECOND:
            raise RuntimeError("can't start new thread")
        return actor(region, identity)

    async with grouped(make) as group:
        group.want(TWO)
        with pytest.raises(Internal, match="region 'echo': RuntimeError: can't start new thread"):
            await group.settled()
        group.want(TWO, [ONE])
        await group.settled()
        assert list(group.actors) == [FIRST]
        assert "a network could not be loaded" in caplog.text


async def test_a_cause_that_may_pass_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encephalon.region.group.RETRY_FIRST_S", 0.05)
    away = True

    class Patient(RegionActor):
        async def start(self) -> None:
            if away:
                raise Unavailable("the object store is away")
            await super().start()

    def make(region: Region, identity: str) -> RegionActor:
        config = Config(region.network, None, region.arguments, version=identity)
        return Patient("echo", config, find_network("diagnostics", "001"))

    async with grouped(make) as group:
        group.want(ONE)
        with pytest.raises(Unavailable, match="away"):
            await group.settled()
        away = False
        await until(lambda: FIRST in group.actors)
        assert not group.failed


async def test_leaving_answers_what_every_network_has_admitted() -> None:
    slow, slower = (region("diagnostics/003", delay_ms=delay) for delay in (50.0, 60.0))
    async with grouped() as group:
        model = FollowingRegion(group, "brain:test@production")
        group.want(slower, [slow])
        await group.settled()
        asked = [asyncio.create_task(model.infer(request(identity_of(each)))) for each in (slow, slower)]
        await until(lambda: all(each.load_share or each._mailbox.busy for each in group.actors.values()))
        await group.drain()
        assert not model.ready()
        assert [(await each).model_version for each in asked] == [identity_of(slow), identity_of(slower)]
        with pytest.raises(Unavailable, match="leaving"):
            await model.infer(request())
