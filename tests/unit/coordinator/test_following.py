"""A coordinator that follows a brain of the library: what it waits for, what it keeps, and when it changes over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from encephalon.coordinator.admission import Admission
from encephalon.coordinator.brains import Brains, Pending
from encephalon.coordinator.following import followed
from encephalon.coordinator.link import LinkOptions
from encephalon.coordinator.members import Connections
from encephalon.coordinator.replicas import Answering
from encephalon.coordinator.served import Served
from encephalon.core.errors import EncephalonError, FailedPrecondition, InvalidManifest, NotFound, Unavailable
from encephalon.core.wire import InferRequest, InferResponse
from encephalon.discovery import Instance, watch_serving
from encephalon.library.brains import Brain, identity_of
from encephalon.library.brains.releases import brain_of
from encephalon.library.library import Library
from encephalon.library.records import Reference
from tests.followed import Stores, add_brain, brain_text, library_in
from tests.unit.coordinator.brains import Region, ask
from tests.waiting import until


class House:
    """Regions in this process, by region and identity; a test puts them in and takes them out."""

    def __init__(self) -> None:
        self.there: dict[tuple[str, str], Region] = {}
        self.broken: dict[tuple[str, str], str] = {}
        self.width: dict[tuple[str, str], int] = {}
        self._changed: Callable[[], None] = lambda: None

    def listen(self, changed: Callable[[], None]) -> None:
        self._changed = changed

    def hosts(self, region: str) -> bool:
        return True

    def actors(self, region: str, identity: str) -> Iterator[tuple[str, Answering]]:
        if found := self.there.get((region, identity)):
            for number in range(self.width.get((region, identity), 1)):
                yield f"{region}-{number}", found

    def failed(self, region: str, identity: str) -> str:
        return self.broken.get((region, identity), "")

    def put(self, region: str, identity: str, served: Region | None = None) -> Region:
        self.there[region, identity] = served or Region(version=identity)
        self._changed()
        return self.there[region, identity]


class Site:
    """Brain `both` followed at `production`; its versions differ in `first` and `second`, and share `join`."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.house = House()
        self.brains = Brains(
            admission=Admission(100, 1 << 20, 1 << 16),
            links=LinkOptions(grace_s=0.05),
            connections=Connections(hosting={"both": self.house}),
        )

    async def identity(self, version: int, region: str) -> str:
        return identity_of(brain_of(await self.library.show(f"brain:both@{version}")).region(region))

    async def put(self, version: int, *regions: str) -> list[Region]:
        return [self.house.put(region, await self.identity(version, region)) for region in regions]

    async def move(self, version: int) -> None:
        await self.library.alias(f"brain:both@{version}", "production")

    @property
    def pending(self) -> str:
        pending = self.brains.followed["both"].pending
        return f"{pending.version}: {pending.waits_for}" if pending else ""

    def version(self) -> str:
        served = self.brains.standing.current.get("both")
        return served.version if served else ""

    async def ask(self) -> InferResponse:
        request = ask(left=1, right=2)
        return await self.brains.infer(InferRequest("both", inputs=request.inputs))


@asynccontextmanager
async def following(tmp_path: Path, selector: int | str = "production") -> AsyncIterator[Site]:
    async with library_in(Stores(tmp_path)) as library:
        for version in (1, 2, 3):
            await add_brain(library, brain_text(version), "production" if version == 1 else None)
        site = Site(library)
        reference = Reference("both", selector, "brain")
        async with followed(site.brains, library, library.key_value, "here", reference):
            yield site
        await site.brains.close()


async def test_it_changes_over_when_every_region_can_and_not_before(tmp_path: Path) -> None:
    async with following(tmp_path) as site:
        await until(lambda: site.version() == "1")
        assert not site.brains.model_ready("both")
        await site.put(1, "first", "second", "join")
        answer = await site.ask()
        assert answer.model_version == "1"
        assert answer.parameters["version.first"] == await site.identity(1, "first")
        await site.move(2)
        await until(lambda: site.pending == "2: region 'first' has no replica")
        assert (await site.ask()).model_version == "1"
        await site.put(2, "first")
        await until(lambda: site.pending == "2: region 'second' has no replica")
        assert (await site.ask()).model_version == "1"
        await site.put(2, "second")
        await until(lambda: site.version() == "2")
        assert not site.pending
        answer = await site.ask()
        assert answer.model_version == "2"
        assert answer.parameters["version.second"] == await site.identity(2, "second")


async def test_it_waits_a_while_for_as_many_replicas_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with following(tmp_path) as site:
        for version in (1, 2):
            site.house.width["first", await site.identity(version, "first")] = 2
        await site.put(1, "first", "second", "join")
        await until(lambda: site.version() == "1")
        await site.put(3, "first", "second")
        await site.move(3)
        await until(lambda: site.pending == "3: region 'first' has 1 of 2 replicas")
        await site.put(2, "first", "second")
        await site.move(2)
        await until(lambda: site.version() == "2")
        monkeypatch.setattr("encephalon.coordinator.following.WIDE_S", 0.1)
        await site.move(3)
        await until(lambda: site.version() == "3")


async def test_requests_on_their_way_finish_on_the_version_that_they_began_with(tmp_path: Path) -> None:
    async with following(tmp_path) as site:
        gate = asyncio.Event()
        slow = site.house.put("first", await site.identity(1, "first"), Region(lambda _: gate.wait(), version="slow"))
        second, join = await site.put(1, "second", "join")
        await until(lambda: site.version() == "1")
        running = asyncio.create_task(site.ask())
        await until(lambda: slow.asked)
        await site.put(2, "first", "second")
        await site.move(2)
        await until(lambda: site.version() == "2")
        assert (await site.ask()).model_version == "2"
        assert site.brains.standing.in_use("both") == ["1", "2"]
        serving = watch_serving(site.library.key_value, "here", "both")
        told: set[frozenset[int]] = set()

        async def hear() -> None:
            async for versions in serving:
                told.add(versions)

        hearing = asyncio.create_task(hear())
        await until(lambda: frozenset({1, 2}) in told)
        gate.set()
        answer = await running
        assert answer.model_version == "1"
        assert answer.parameters["version.first"] == "slow"
        assert [request.model_version for request in slow.asked] == [await site.identity(1, "first")]
        assert len(second.asked) == 1
        assert len(join.asked) == 2, "what both versions have is asked by both"
        await until(lambda: frozenset({2}) in told)
        assert site.brains.standing.in_use("both") == ["2"]
        hearing.cancel()


async def test_what_cannot_be_loaded_is_told_and_the_old_stays(tmp_path: Path) -> None:
    async with following(tmp_path) as site:
        await site.put(1, "first", "second", "join")
        await until(lambda: site.version() == "1")
        site.house.broken["second", await site.identity(2, "second")] = "its weights are damaged"
        await site.put(2, "first")
        await site.move(2)
        await until(lambda: "its weights are damaged" in site.pending)
        pending = site.brains.followed["both"].pending
        assert pending is not None
        assert pending.failed
        assert (await site.ask()).model_version == "1"
        assert ("2", "LOADING") in {(entry.version, entry.state) for entry in site.brains.index()}
        await site.move(1)
        await until(lambda: not site.pending)
        assert (await site.ask()).model_version == "1"


async def test_a_version_that_does_not_fit_its_servers_has_failed_and_one_whose_servers_are_away_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("encephalon.coordinator.following.RETRY_FIRST_S", 0.05)
    async with following(tmp_path) as site:
        await site.put(1, "first", "second", "join")
        await until(lambda: site.version() == "1")
        error: EncephalonError = Unavailable("the server is away")

        async def refuse(brain: Brain, version: str) -> Served:
            raise error

        monkeypatch.setattr(site.brains, "prepare", refuse)
        pending = lambda: site.brains.followed["both"].pending  # noqa: E731
        await site.move(2)
        await until(lambda: pending() == Pending("2", "the server is away"))
        error = InvalidManifest("the server gives something else")
        await until(lambda: pending() == Pending("2", "the server gives something else", failed=True))
        assert (await site.ask()).model_version == "1"


async def test_one_that_is_started_anew_falls_back_to_what_can_be_loaded(tmp_path: Path) -> None:
    """As its predecessor, which was there when the alias moved, did not leave version 1."""
    async with library_in(Stores(tmp_path)) as library:
        for version in (1, 2, 3):
            await add_brain(library, brain_text(version), "production")
        site = Site(library)
        for version in (2, 3):
            site.house.broken["first", await site.identity(version, "first")] = "its weights are damaged"
        await site.put(1, "first", "second", "join")
        await site.put(2, "second")
        reference = Reference("both", "production", "brain")
        async with followed(site.brains, library, library.key_value, "here", reference):
            await until(lambda: site.version() == "1")
            assert (await site.ask()).model_version == "1"
            await until(lambda: site.pending == "3: its weights are damaged")
            assert sorted(site.brains.standing.in_use("both")) == ["1", "3"]
            site.house.broken.clear()
            await site.put(3, "first", "second")
            await until(lambda: site.version() == "3")
            assert not site.pending
        await site.brains.close()


async def test_a_region_that_comes_into_the_process_is_served_where_it_was_until_it_is_there(tmp_path: Path) -> None:
    async with following(tmp_path) as site:
        identity = await site.identity(1, "first")
        await until(lambda: site.version() == "1")
        link = site.brains.served("both").links["first"]
        elsewhere = Instance(
            brain="both",
            region="first",
            id="far",
            address="127.0.0.1:9",
            state=Instance.STATE_READY,
            versions=[identity],
        )
        members = site.brains.standing._members["both"]
        members.told([elsewhere])
        await site.put(1, "second", "join")
        assert set(link.replicas) == {"far"}
        site.house.put("first", identity)
        assert set(link.replicas) == {"first-0"}
        members.told([])
        assert set(link.replicas) == {"first-0"}


async def test_a_newer_move_supersedes_one_that_waits(tmp_path: Path) -> None:
    async with following(tmp_path) as site:
        await site.put(1, "first", "second", "join")
        await until(lambda: site.version() == "1")
        await site.move(2)
        await until(lambda: site.pending.startswith("2: region"))
        await site.move(3)
        await until(lambda: site.pending.startswith("3: region"))
        await site.put(3, "first", "second")
        await until(lambda: site.version() == "3")
        assert (await site.ask()).model_version == "3"
        assert [served.version for served in site.brains.standing._live["both"]] == ["3"]


async def test_links_are_shared_by_versions_that_come_back(tmp_path: Path) -> None:
    async with following(tmp_path) as site:
        for version in (1, 2):
            await site.put(version, "first", "second", "join")
        await until(lambda: site.version() == "1")
        join = site.brains.served("both").links["join"]
        for version in (2, 1, 2, 1):
            await site.move(version)
            await until(lambda: site.version() == str(version))  # noqa: B023
            assert (await site.ask()).model_version == str(version)
            assert site.brains.served("both").links["join"] is join
        assert len(site.brains.standing._live["both"]) == 1


async def test_a_number_is_not_followed(tmp_path: Path) -> None:
    async with following(tmp_path, 2) as site:
        for version in (1, 2):
            await site.put(version, "first", "second", "join")
        await until(lambda: site.version() == "2")
        await site.move(3)
        assert (await site.ask()).model_version == "2"
        assert not site.pending


async def test_only_the_library_changes_what_follows_it(tmp_path: Path) -> None:
    async with following(tmp_path) as site:
        with pytest.raises(Unavailable, match="not loaded yet: both@production means no version yet"):
            site.brains.served("both")
        assert not site.brains.ready()
        assert not site.brains.model_ready("both")
        await site.put(1, "first", "second", "join")
        await until(lambda: site.version() == "1")
        assert site.brains.ready()
        with pytest.raises(FailedPrecondition, match="follows both@production of the library"):
            await site.brains.load("both", {"config": brain_text(7)})
        with pytest.raises(FailedPrecondition, match="move the alias"):
            await site.brains.unload("both", {})
        with pytest.raises(NotFound, match="in service as version 1"):
            site.brains.served("both", "2")


async def test_a_version_that_cannot_be_read_here_says_why(tmp_path: Path) -> None:
    async with following(tmp_path) as site:
        await site.put(1, "first", "second", "join")
        await until(lambda: site.version() == "1")
        record = await site.library.show("brain:both@1")
        record.brain.manifest = record.brain.manifest.replace("diagnostics/002", "elsewhere/001")
        version = (await site.library.add(record)).id.version
        await site.move(version)
        await until(lambda: "no area 'elsewhere'" in site.pending)
        assert (await site.ask()).model_version == "1"
