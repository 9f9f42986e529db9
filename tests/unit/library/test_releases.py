"""What is told of a brain that is followed: its alias now and after each move, and what coordinators serve."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from encephalon.core.errors import InvalidManifest
from encephalon.discovery import announced_serving, watch_serving
from encephalon.library.brains.releases import Wanted, brain_of, earlier, follow, read_release, wanted
from encephalon.library.library import Library
from encephalon.library.records import Reference
from tests.followed import Stores, add_brain, brain_text, library_in
from tests.waiting import until


@pytest.fixture
async def library(tmp_path: Path) -> AsyncIterator[Library]:
    async with library_in(Stores(tmp_path)) as library:
        yield library


@asynccontextmanager
async def heard(told: AsyncGenerator[Any, None]) -> AsyncIterator[list[Any]]:
    """What has been told so far."""
    found: list[Any] = []

    async def hear() -> None:
        async with aclosing(told):
            async for item in told:
                found.append(item)  # noqa: PERF401 - it never ends

    task = asyncio.create_task(hear())
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_an_alias_is_waited_for_and_followed_and_latest_is_one(library: Library) -> None:
    production, latest = (Reference("both", selector, "brain") for selector in ("production", "latest"))
    async with heard(follow(library, production)) as moves, heard(follow(library, latest)) as newest:
        for version in (1, 2):
            await add_brain(library, brain_text(version))
            await until(lambda: [release.version for release in newest] == [1, 2][:version])  # noqa: B023
        assert not moves
        for number, version in enumerate((1, 2, 1), 1):
            await library.alias(f"brain:both@{version}", "production")
            await until(lambda: len(moves) == number)  # noqa: B023
        assert [release.version for release in moves] == [1, 2, 1]
        assert moves[1].brain.region("first").arguments == {"offset": 2}


async def test_a_number_is_told_once(library: Library) -> None:
    await add_brain(library, brain_text(1))
    await add_brain(library, brain_text(2))
    async with heard(follow(library, Reference("both", 1, "brain"))) as told:
        await until(lambda: told)
        await library.alias("brain:both@2", "production")
        assert [release.version for release in told] == [1]


async def test_what_is_followed_comes_with_what_is_still_served(library: Library) -> None:
    for version in (1, 2, 3):
        await add_brain(library, brain_text(version))
    await library.alias("brain:both@1", "production")
    store, in_use = library.key_value, [1]

    def last(told: list[Wanted]) -> tuple[int, list[int]]:
        return (told[-1].target.version, [release.version for release in told[-1].others]) if told else (0, [])

    async with heard(wanted(library, store, "here", Reference("both", "production", "brain"))) as told:
        await until(lambda: last(told) == (1, []))
        async with (
            announced_serving(store, "here", "both", "one", lambda: in_use) as announcement,
            announced_serving(store, "here", "both", "two", lambda: [3]),
            announced_serving(store, "elsewhere", "both", "three", lambda: [2]),
        ):
            await until(lambda: last(told) == (1, [3]))
            await library.alias("brain:both@2", "production")
            await until(lambda: last(told) == (2, [1, 3]))
            in_use[:] = [2]
            announcement.touch()
            await until(lambda: last(told) == (2, [3]))
        await until(lambda: last(told) == (2, []))


async def test_without_the_alias_what_is_served_is_there(library: Library) -> None:
    """A region that is started while the alias is dropped must not leave coordinators alone."""
    for version in (1, 2, 3):
        await add_brain(library, brain_text(version))
    store = library.key_value

    def last(told: list[Wanted]) -> list[int]:
        return [release.version for release in told[-1].releases] if told else []

    async with heard(wanted(library, store, "here", Reference("both", "production", "brain"))) as told:
        async with announced_serving(store, "here", "both", "one", lambda: [1, 2]):
            await until(lambda: last(told) == [2, 1])
            await library.alias("brain:both@3", "production")
            await until(lambda: last(told) == [3, 1, 2])
            await library.drop_alias("brain", "both", "production")
        await until(lambda: last(told) == [3])


async def test_what_an_alias_meant_before_is_known_back_to_the_first(library: Library) -> None:
    for version in (1, 2, 3):
        await add_brain(library, brain_text(version))
    for version in (1, 2, 1, 3):
        await library.alias(f"brain:both@{version}", "production")
    assert await earlier(library, Reference("both", "production", "brain"), 3) == [1, 2]
    assert await earlier(library, Reference("both", 3, "brain"), 3) == []
    assert await earlier(library, Reference("both", "latest", "brain"), 3) == []


async def test_what_cannot_be_read_for_whatever_reason_is_told(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_brain(library, brain_text(1))
    release = await read_release(library, "both", 2)
    assert release.brain is None
    assert "2" in release.problem

    def broken(record: object) -> None:
        raise KeyError("of a package")

    monkeypatch.setattr("encephalon.library.brains.releases.brain_of", broken)
    assert (await read_release(library, "both", 1)).problem == "KeyError: 'of a package'"


async def test_a_damaged_record_of_a_coordinator_serves_nothing(library: Library) -> None:
    async with heard(watch_serving(library.key_value, "here", "both")) as told:
        await until(lambda: told == [frozenset()])
        await library.key_value.put("/encephalon/here/serving/both/one", b"\xff\xff")
        async with announced_serving(library.key_value, "here", "both", "two", lambda: [7]):
            await until(lambda: told[-1] == frozenset({7}))
        await until(lambda: told[-1] == frozenset())


async def test_a_brain_runs_under_the_name_of_its_record(library: Library) -> None:
    version = await add_brain(library, brain_text(1))
    record = await library.show(f"brain:both@{version}")
    record.id.name = "mine"
    assert brain_of(record).name == "mine"
    record.id.name = "mine/too"
    with pytest.raises(InvalidManifest, match="brain"):
        brain_of(record)
