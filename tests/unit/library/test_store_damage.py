"""Files of the store that the disk has damaged: what the library says must be done against it helps."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import Conflict, Corrupt, InvalidInput
from encephalon.library.library import Library
from encephalon.library.store.keys import object_key
from encephalon.library.store.shards import read_index
from encephalon.state import names, open_key_value, open_objects
from tests.drafts import network

DATA = b"precious weights"


@pytest.fixture
async def library(tmp_path: Path) -> AsyncIterator[Library]:
    async with (
        open_key_value(f"sqlite://{tmp_path}/state.db") as key_value,
        open_objects(f"folder://{tmp_path}/objects") as objects,
    ):
        yield Library(key_value, objects)


@pytest.mark.parametrize("namespace", ["", "n" * 201, "\ud800"])
def test_a_namespace_has_a_name(library: Library, namespace: str) -> None:
    with pytest.raises(InvalidInput, match="the namespace"):
        Library(library.key_value, library.objects, namespace=namespace)


async def test_what_is_no_file_is_not_waited_for(library: Library, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    async with library.writing("test") as writer:
        for path, sentence in ((tmp_path / "pipe", "is not a file"), (tmp_path / "nowhere", "cannot be read")):
            with pytest.raises(InvalidInput, match=sentence):
                await writer.put_file(path)


async def test_no_more_is_read_than_a_record_says_that_there_is(library: Library) -> None:
    chunks = 0

    async def endless(key: str) -> AsyncIterator[bytes]:
        nonlocal chunks
        while True:
            chunks += 1
            yield bytes(1000)

    library.objects.get = endless  # type: ignore[method-assign,assignment]
    listed = pb.Object(sha256="ab" * 32, size=2500)
    with pytest.raises(Corrupt, match="more than the 2500 bytes"):
        await library.read(listed)
    with pytest.raises(Corrupt, match="more than the 2500 bytes"):
        await read_index(library.objects, listed)
    assert chunks == 2 * 4 * 3  # each was tried four times


@pytest.mark.parametrize(("failures", "problems"), [(3, 0), (99, 1)])
async def test_a_network_that_cuts_reads_is_no_damage(library: Library, failures: int, problems: int) -> None:
    async with library.writing("test") as writer:
        weights = await writer.put_bytes(DATA)
        await writer.commit(network(weights=weights))
    get, failed = library.objects.get, 0

    async def cut(key: str) -> AsyncIterator[bytes]:
        nonlocal failed
        if (failed := failed + 1) <= failures:
            raise Conflict("it was cut while it was read")
        async for chunk in get(key):
            yield chunk

    library.objects.get = cut  # type: ignore[method-assign,assignment]
    assert len(await library.verify()) == problems
    library.objects.get = get  # type: ignore[method-assign]
    assert await library.verify() == []


@pytest.mark.parametrize(
    "damage", [lambda data: b"P" + data[1:], lambda data: data[:20], lambda data: b""], ids=["bit", "cut", "empty"]
)
@pytest.mark.parametrize("imported", [False, True], ids=["put", "imported"])
async def test_what_was_damaged_is_healed_by_putting_it_again(
    library: Library, tmp_path: Path, damage: Callable[[bytes], bytes], imported: bool
) -> None:
    async with library.writing("test") as writer:
        weights = await writer.put_bytes(DATA)
        await writer.commit(network(weights=weights))
    await library.export(["digits"], tmp_path / "digits.zip")
    path = tmp_path / "objects" / names.name_of(object_key(weights.sha256))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(Corrupt):
        await library.read(weights)
    for quick in (False, True):
        (problem,) = await library.verify(quick=quick)
        assert (problem.what, problem.subject) == ("object", weights.sha256)
        assert problem.sentence.endswith("put it again")
    if imported:
        await library.import_(tmp_path / "digits.zip")
    else:
        async with library.writing("test") as writer:
            await writer.put_bytes(DATA)
    assert await library.read(weights) == DATA
    assert await library.verify() == []
