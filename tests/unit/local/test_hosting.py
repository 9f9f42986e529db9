"""Regions of a followed brain in the coordinator's process: as many actors as replicas, for every version in use."""

from __future__ import annotations

import pytest

from encephalon.core.errors import FailedPrecondition
from encephalon.library.areas import find_network
from encephalon.library.brains import Region, identity_of, parse_manifest
from encephalon.library.brains.releases import Release, Wanted
from encephalon.local.hosting import Hosted
from encephalon.region import Config, RegionActor
from tests.regions import manifest
from tests.waiting import until


def release(version: int, network: str = "diagnostics/001", **more: object) -> Release:
    return Release(version, parse_manifest(manifest(network, **more)))


def identity(of: Release) -> str:
    assert of.brain is not None
    return identity_of(of.brain.region("echo"))


def actor(region: Region, identity: str) -> RegionActor:
    config = Config(region.network, None, region.arguments, version=identity)
    return RegionActor(region.name, config, find_network(*region.network.split("/")))


def hosted(**replicas: int) -> Hosted:
    return Hosted(actor, lambda region: region.placement != "distributed", replicas)


def names(hosting: Hosted, of: Release) -> list[str]:
    return [name for name, _ in hosting.actors("echo", identity(of))]


ONE, TWO = release(1, arguments={"offset": 1.0}, replicas=2), release(2, arguments={"offset": 2.0}, replicas=3)


async def test_there_are_as_many_actors_as_the_widest_version_has_replicas() -> None:
    hosting, told = hosted(), []
    hosting.listen(lambda: told.append(len(names(hosting, TWO))))
    await hosting.begin(Wanted(ONE, ()))
    assert hosting.hosts("echo")
    assert names(hosting, ONE) == ["echo-here-0", "echo-here-1"]
    hosting.want(Wanted(TWO, (ONE,)))
    await until(lambda: len(names(hosting, TWO)) == 3)
    assert len(names(hosting, ONE)) == 3
    assert told[-1] == 3
    await hosting.stop()


async def test_what_was_typed_goes_over_the_manifest() -> None:
    hosting = hosted(echo=1)
    await hosting.begin(Wanted(ONE, ()))
    assert names(hosting, ONE) == ["echo-here-0"]
    await hosting.stop()


async def test_a_region_that_lives_in_a_process_of_its_own_is_not_hosted() -> None:
    hosting = hosted()
    await hosting.begin(Wanted(release(1, placement="distributed"), ()))
    assert not hosting.hosts("echo")
    await hosting.stop()


async def test_what_cannot_be_loaded_is_told() -> None:
    broken = release(2, "diagnostics/004")
    hosting = hosted()
    await hosting.begin(Wanted(ONE, ()))
    hosting.want(Wanted(broken, (ONE,)))
    await until(lambda: hosting.failed("echo", identity(broken)))
    assert "warming up with 1 rows failed" in hosting.failed("echo", identity(broken))
    assert hosting.failed("echo", identity(ONE)) == ""
    assert len(names(hosting, ONE)) == 2
    await hosting.stop()
    other = hosted()
    with pytest.raises(FailedPrecondition, match="warming up"):
        await other.begin(Wanted(broken, ()))
    await other.stop()
    with pytest.raises(FailedPrecondition, match="elsewhere"):
        await hosted().begin(Wanted(Release(3, None, "no area 'elsewhere'"), ()))
