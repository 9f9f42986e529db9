"""Lists on each key-value store."""

from __future__ import annotations

import pytest

from encephalon.library.query import Query, ls, page
from encephalon.state import KeyValue
from tests.unit.library.summaries import SomeLibrary, fill, networks

NAMESPACE = "listing"


@pytest.fixture
async def library(store: KeyValue, prefix: str) -> SomeLibrary:
    namespace = f"{NAMESPACE}{prefix}"
    await fill(store, networks(1500), namespace)
    await fill(store, networks(3), "another")
    return SomeLibrary(store, namespace)


async def test_pages_and_the_stream_tell_the_same(library: SomeLibrary) -> None:
    query = Query(metrics=[("accuracy.test", ">=", 0.5)])
    expected = {one.id.name for one in networks(1500) if one.metrics["accuracy.test"] >= 0.5}
    assert {one.id.name async for one in ls(library, query)} == expected
    for sort in ("", "-metric:accuracy.test", "-created", "name"):
        asked = Query(metrics=query.metrics, sort=sort)
        found, after = [], ""
        while True:
            some = await page(library, asked, size=400, after=after)
            found += [one.id.name for one in some.items]
            if not (after := some.next):
                break
        assert len(found) == len(expected)
        assert set(found) == expected


async def test_another_namespace_is_another_library(library: SomeLibrary) -> None:
    other = SomeLibrary(library.key_value, "another")
    assert len((await page(other)).items) == 3
    assert len((await page(SomeLibrary(library.key_value, "third"))).items) == 0
