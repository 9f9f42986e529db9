"""A brain of the library follows its alias: back and forth under load, with no request lost and no version mixed."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from encephalon.client import Brains, connect
from encephalon.coordinator import CoordinatorSettings, coordinate
from encephalon.core.errors import EncephalonError, Unavailable
from encephalon.library.brains.swapping import swapped
from encephalon.library.library import Library
from encephalon.library.sample import load_sample
from encephalon.state import open_key_value
from tests.followed import Stores, add_brain, ask_both, brain_text, following_region, library_in, version_of
from tests.load import steady_load
from tests.running import RunningBrain, running
from tests.waiting import until

MOVES, CALLERS = 20, 8
FOLLOW = "both@production"


@asynccontextmanager
async def distributed(stores: Stores) -> AsyncIterator[Brains]:
    """Two replicas of `first`, one of the others, and a coordinator in this process."""
    async with AsyncExitStack() as stack:
        for region in ("first", "first", "second", "join"):
            await stack.enter_async_context(following_region(stores, FOLLOW, region))
        store = await stack.enter_async_context(open_key_value(stores.state))
        settings = CoordinatorSettings(listen="127.0.0.1:0", follow=[FOLLOW])
        running = await stack.enter_async_context(coordinate(settings, [], store=store))
        yield await stack.enter_async_context(connect(running.server.addresses[0]))


async def ready(brains: Brains, replicas: int) -> bool:
    try:
        found = await brains.describe("both")
    except Unavailable:  # the library has not been read yet
        return False
    return sum(len(region.replicas) for region in found.regions if region.ready) >= replicas


async def moved_back_and_forth(
    library: Library,
    brains: Brains,
    moves: int,
    there: Callable[[], Awaitable[bool]],
    meanwhile: Callable[[int], object] = lambda move: None,
) -> Counter[int]:
    """How many answers each version gave; the alias moves when the last move has been seen in an answer.

    `meanwhile` is called right after every move.
    """
    await until(there, 20, "every replica is connected")
    versions: Counter[int] = Counter()
    numbers = iter(range(1, 10**9))

    async def ask() -> None:
        left = float(next(numbers) % 97)
        versions[version_of(await ask_both(brains, left, 2 * left), left, 2 * left)] += 1

    async with steady_load(ask, CALLERS) as load:
        for move in range(moves):
            version = 2 - move % 2
            await library.alias(f"brain:both@{version}", "production")
            meanwhile(move)
            before = versions[version]
            await until(lambda: versions[version] > before + 3, 20, f"version {version} answers")  # noqa: B023
        await until(lambda: load.answered() > 200, 20)
    assert load.failures == []
    assert sum(versions.values()) == load.answered()
    return versions


@pytest.fixture
async def library(tmp_path: Path) -> AsyncIterator[Library]:
    async with library_in(Stores(tmp_path)) as library:
        assert await add_brain(library, brain_text(1), "production") == 1
        assert await add_brain(library, brain_text(2)) == 2
        yield library


async def test_production_moves_back_and_forth_under_load(library: Library, tmp_path: Path) -> None:
    async with distributed(Stores(tmp_path)) as brains:
        versions = await moved_back_and_forth(library, brains, MOVES, lambda: ready(brains, 4))
        assert set(versions) == {1, 2}
        described = await brains.describe("both")
        assert (described.version, described.follows, described.pending) == ("1", FOLLOW, None)
        assert all(region.identity.startswith("diagnostics-00") for region in described.regions)


@pytest.mark.slow
async def test_production_moves_back_and_forth_in_one_process(library: Library, tmp_path: Path) -> None:
    async with running(FOLLOW, tmp_path, "--colocated", "--replicas", "first=2") as brain, brain.connect() as brains:
        assert [entry["name"] for entry in (brain.record() or {})["processes"]] == ["coordinator"]
        versions = await moved_back_and_forth(library, brains, MOVES, lambda: ready(brains, 4))
        assert set(versions) == {1, 2}


@pytest.mark.slow
async def test_a_replica_is_killed_again_and_again_while_the_alias_moves(library: Library, tmp_path: Path) -> None:
    async with running(FOLLOW, tmp_path, "--replicas", "first=2") as brain, brain.connect() as brains:

        def kill(move: int) -> None:
            if move % 4 == 1 and brain.pid("first-0") is not None:
                brain.kill("first-0")

        versions = await moved_back_and_forth(library, brains, MOVES, lambda: ready(brains, 4), kill)
        assert set(versions) == {1, 2}
        restarts = {entry["name"]: entry["restarts"] for entry in (brain.record() or {})["processes"]}
        assert restarts["first-0"] >= 1


@pytest.mark.slow
async def test_a_region_that_no_version_in_service_has_is_stopped(library: Library, tmp_path: Path) -> None:
    wider = brain_text(3).replace("  join:", "  more: {network: diagnostics/001}\n  join:")
    wider = wider.replace(
        "{from: second.y, to: join.b}", "{from: second.y, to: more.x}\n  - {from: more.y, to: join.b}"
    )
    assert await add_brain(library, wider) == 3
    async with running(FOLLOW, tmp_path) as brain, brain.connect() as brains:
        for version, names in ((3, True), (1, False)):
            await library.alias(f"brain:both@{version}", "production")
            await until(lambda: answered_by(brains, version), 20, f"version {version} answers")  # noqa: B023
            await until(lambda: has(brain, "more-0") is names, 40, "the processes are those of the version")  # noqa: B023


@pytest.mark.slow
async def test_killed_processes_come_back_while_the_alias_means_what_cannot_be_loaded_or_nothing(
    library: Library, tmp_path: Path
) -> None:
    broken = brain_text(3).replace("{network: diagnostics/001, arguments: {offset: 3}", "{network: diagnostics/004")
    assert await add_brain(library, broken) == 3
    async with running(FOLLOW, tmp_path) as brain, brain.connect() as brains:

        async def back(name: str) -> None:
            killed = brain.kill(name)
            await until(lambda: brain.pid(name) not in (None, killed), 10, f"{name} has a new process")
            await until(lambda: answering(brains, 1), 20, f"version 1 answers after {name} was killed")

        await library.alias("brain:both@3", "production")
        await until(lambda: cannot_be_served(brains, "3"), 20)
        for name in ("coordinator", "second-0"):
            await back(name)
        await until(lambda: cannot_be_served(brains, "3"), 20)
        await library.rollback("brain:both")
        await library.drop_alias("brain", "both", "production")
        await back("first-0")


@pytest.mark.slow
async def test_senses_that_a_brain_could_do_without_are_in_every_answer(tmp_path: Path) -> None:
    """The demo brain, whose eye is swapped under load: no answer lacks it, though answers without it are possible."""
    sample, networks = load_sample(), {"1": "vision-002", "2": "vision-003", "3": "vision-001"}
    async with running("digits", tmp_path) as brain, brain.connect() as brains, library_in(Stores(tmp_path)) as library:
        await brain.until_replicas(3)
        versions: Counter[str] = Counter()
        pairs = iter(range(10**9))

        async def ask() -> None:
            pair = next(pairs) % len(sample.labels)
            answer = await brains.infer("digits", image=sample.images[pair], audio=sample.audio[pair])
            assert not answer.missing
            assert answer.versions["visual"].startswith(networks[answer.version])
            versions[answer.version] += 1

        async with steady_load(ask, 4) as load:
            for version, network in ((2, "vision/003"), (3, "vision/001")):
                before = await library.show("brain:digits@production")
                draft = (await swapped(library, before, {"visual": network})).draft
                await library.add(draft, alias="production")
                await until(lambda: versions[str(version)] > 20, 30, f"version {version} answers")  # noqa: B023
            for version in (2, 1):
                await library.rollback("brain:digits")
                seen = versions[str(version)]
                await until(lambda: versions[str(version)] > seen + 20, 30, f"version {version} answers")  # noqa: B023
        assert load.failures == []


async def answered_by(brains: Brains, version: int) -> bool:
    return version_of(await ask_both(brains, 1.0, 2.0), 1.0, 2.0) == version


async def answering(brains: Brains, version: int) -> bool:
    try:
        return await answered_by(brains, version)
    except EncephalonError:
        return False


async def cannot_be_served(brains: Brains, version: str) -> bool:
    pending = (await brains.describe("both")).pending
    return pending is not None and (pending.version, pending.failed) == (version, True)


def has(brain: RunningBrain, name: str) -> bool:
    return name in {entry["name"] for entry in (brain.record() or {})["processes"]}
