"""Lists of ten thousand networks in an embedded store: right, quick, and never more than a page in memory."""

from __future__ import annotations

import asyncio
import contextlib
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import InvalidInput, NotFound
from encephalon.library.library import Library
from encephalon.library.query import Query, ls, page
from encephalon.state import open_key_value
from encephalon.state.folder import Folder
from tests.unit.library.summaries import SomeLibrary, fill, networks

COUNT = 10_000
# Measured: 60 ms on an idle machine of two cores; the tests' machine is seldom idle.
PAGE_WITHIN_S = 1.0


@pytest.fixture(scope="module")
def stored() -> list[pb.Summary]:
    return list(networks(COUNT))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, stored: list[pb.Summary]) -> str:
    url = f"sqlite://{tmp_path_factory.mktemp('listing')}/store.db"

    async def prepare() -> None:
        async with open_key_value(url) as store:
            await fill(store, stored)

    asyncio.run(prepare())
    return url


@pytest.fixture
async def library(url: str) -> AsyncIterator[SomeLibrary]:
    async with open_key_value(url) as store:
        yield SomeLibrary(store)


@pytest.fixture
async def empty(tmp_path: Path) -> AsyncIterator[SomeLibrary]:
    async with open_key_value(f"sqlite://{tmp_path}/empty.db") as store:
        yield SomeLibrary(store)


async def pages(library: SomeLibrary, query: Query, size: int) -> list[pb.Summary]:
    found: list[pb.Summary] = []
    after = ""
    while True:
        some = await page(library, query, size=size, after=after)
        assert len(some.items) == size or not some.next
        found += some.items
        if not (after := some.next):
            return found


def names(summaries: Sequence[pb.Summary]) -> list[str]:
    return [summary.id.name for summary in summaries]


GOOD = Query(kind="network", area="vision", metrics=[("accuracy.test", ">=", 0.5)], sort="-metric:accuracy.test")


async def test_a_filtered_and_sorted_first_page_is_right_and_quick(
    library: SomeLibrary, stored: list[pb.Summary]
) -> None:
    times = []
    for _ in range(5):
        began = time.perf_counter()
        found = await page(library, GOOD)
        times.append(time.perf_counter() - began)
    fitting = [one for one in stored if one.area == "vision" and one.metrics["accuracy.test"] >= 0.5]
    fitting.sort(key=lambda one: -one.metrics["accuracy.test"])
    assert found.items == fitting[:50]
    assert found.next
    assert min(times) < PAGE_WITHIN_S


SORTED: dict[str, Callable[[pb.Summary], object]] = {
    "name": lambda one: one.id.name,
    "created": lambda one: (one.created_time.seconds, one.id.name),
    "size": lambda one: (one.size, one.id.name),
    "version": lambda one: one.id.name,
    "metric:loss.test": lambda one: (one.metrics["loss.test"], one.id.name),
}


@pytest.mark.parametrize("sort", [*SORTED, "-created", "-name", ""])
async def test_pages_together_are_the_whole(library: SomeLibrary, stored: list[pb.Summary], sort: str) -> None:
    query = Query(tags={"team": "red"}, code="002", sort=sort)
    fitting = [one for one in stored if one.tags["team"] == "red" and one.code == "002"]
    key = SORTED[sort.removeprefix("-") or "name"]
    fitting.sort(key=key, reverse=sort.startswith("-"))  # type: ignore[arg-type, return-value]
    assert names(await pages(library, query, 300)) == names(fitting)


async def test_all_are_streamed_within_the_memory_of_a_page(library: SomeLibrary) -> None:
    async with contextlib.aclosing(ls(library)) as warm:
        await anext(warm)
    tracemalloc.start()
    try:
        count = 0
        async with contextlib.aclosing(ls(library)) as all_of_them:
            async for _ in all_of_them:
                count += 1
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == COUNT
    # A page of the store is a thousand entries of about 350 bytes with their keys; all ten would be ten times that.
    assert most < 2_000_000


async def test_a_sorted_page_holds_no_more(library: SomeLibrary) -> None:
    await page(library, GOOD)
    tracemalloc.start()
    try:
        await page(library, Query(sort="-created"))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # 2,500 entries of the store with what was made of them; all would be four times that.
    assert most < 5_000_000


async def test_only_the_latest_of_each_name_unless_asked(empty: SomeLibrary) -> None:
    await fill(empty.key_value, [version(name, number) for name in ("a", "a-b", "a/c", "b") for number in (1, 2, 10)])
    for sort in ("", "name"):
        latest = await pages(empty, Query(sort=sort), 2)
        assert sorted((one.id.name, one.id.version) for one in latest) == [
            ("a", 10), ("a-b", 10), ("a/c", 10), ("b", 10),
        ]  # fmt: skip
    every = await pages(empty, Query(sort="-version", all_versions=True), 5)
    assert [one.id.version for one in every] == [10] * 4 + [2] * 4 + [1] * 4
    # A name whose old version fits does not: its latest does not.
    assert (await page(empty, Query(metrics=[("number", "<", 10)]))).items == []
    assert len((await page(empty, Query(metrics=[("number", "<", 10)], all_versions=True))).items) == 8


async def test_versions_that_straddle_a_page_of_the_store(empty: SomeLibrary) -> None:
    await fill(empty.key_value, [version("x", number) for number in range(1, 1004)])
    await fill(empty.key_value, [version("y", 1)])
    assert [(one.id.name, one.id.version) async for one in ls(empty)] == [("x", 1003), ("y", 1)]
    assert len([one async for one in ls(empty, Query(all_versions=True, sort="-version"))]) == 1004


@pytest.mark.parametrize("sort", ["", "name", "-name"])
async def test_pages_stay_when_records_are_added(empty: SomeLibrary, sort: str) -> None:
    words = [f"n{number:02d}" for number in range(10)]
    await fill(empty.key_value, [version(word, 1) for word in words])
    query = Query(sort=sort)
    first = await page(empty, query, size=5)
    seen = names(first.items)
    # New versions of what was told, a name before and one behind.
    await fill(empty.key_value, [version(word, 2) for word in words] + [version("n001", 1), version("n075", 1)])
    rest = await page(empty, query, size=50, after=first.next)
    new = {"n001": sort == "-name", "n075": sort != "-name"}
    expected = sorted([*words, *(name for name, behind in new.items() if behind)], reverse=sort == "-name")
    assert seen + names(rest.items) == expected


async def test_a_misspelt_area_is_told_from_an_empty_answer(library: SomeLibrary) -> None:
    for sort in ("", "name"):
        with pytest.raises(NotFound, match="did you mean 'vision'"):
            await page(library, Query(area="vison", sort=sort))
        with pytest.raises(NotFound, match="did you mean 'vision'"):
            [one async for one in ls(library, Query(area="vison", sort=sort))]
    with pytest.raises(NotFound, match="there are association, detection, hearing"):
        await page(library, Query(area="qqqq"))
    assert (await page(library, Query(area="vision", kind="brain"))).items == []


async def test_nothing_in_an_empty_library(empty: SomeLibrary) -> None:
    assert (await page(empty)).items == []
    assert [one async for one in ls(empty, Query(sort="-created"))] == []
    with pytest.raises(NotFound, match="there are none"):
        await page(empty, Query(area="vision"))


@pytest.mark.parametrize("size", [0, -1, 1001])
async def test_a_page_has_a_size(empty: SomeLibrary, size: int) -> None:
    with pytest.raises(InvalidInput, match="1 to 1000 records"):
        await page(empty, size=size)


async def test_a_pattern_narrows_the_search(library: SomeLibrary) -> None:
    found = await page(library, Query(kind="network", name="vision-0012*"))
    assert names(found.items) == ["vision-00120", "vision-00125"]
    assert names((await page(library, Query(kind="network", name="vision-00120"))).items) == ["vision-00120"]
    assert names((await page(library, Query(kind="network", name="\udcff*"))).items) == []


async def test_words_behind_what_a_summary_shows(empty: SomeLibrary) -> None:
    library = Library(empty.key_value, Folder(Path("unused"), deadline_s=1))
    words = {"long": "word " * 100 + "Elephant", "short": "a zebra", "other": "word " * 100 + "tiger"}
    for name, description in words.items():
        draft = pb.Record(id=pb.Reference(kind=pb.KIND_AREA, name=name), area=pb.Area(), description=description)
        await library.add(draft)
    for text, expected in {
        "elephant": ["long"],
        "WORD elephant": ["long"],
        "word": ["long", "other"],
        "zebra": ["short"],
        "tiger zebra": [],
        "lion": [],
    }.items():
        assert names((await page(empty, Query(text=text))).items) == expected


def version(name: str, number: int) -> pb.Summary:
    return pb.Summary(id=pb.Reference(kind=pb.KIND_NETWORK, name=name, version=number), metrics={"number": number})
