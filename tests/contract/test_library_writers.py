"""Many writers of one name and of one alias: nothing is lost, nothing is given twice."""

from __future__ import annotations

import asyncio
import uuid

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import Conflict
from encephalon.library.library import Library
from encephalon.state import KeyValue, Objects, open_key_value, open_objects
from tests.chaos.library_work import contest_in
from tests.drafts import network
from tests.forks import forks

WRITERS = 16
ROUNDS = 2


async def check_contest(library: Library) -> None:
    versions = list(range(1, WRITERS * ROUNDS + 1))
    assert await library.versions("network", "contested") == versions
    records = [await library.show(f"contested@{version}") for version in versions]
    told = {record.description for record in records}
    assert told == {f"{me} {turn}" for me in range(WRITERS) for turn in range(ROUNDS)}
    for record in records:
        assert await library.read(record.network.weights) == record.description.encode()
    aliases = await library.aliases("network", "contested")
    for alias in ("open", "guarded"):
        assert sorted([*aliases[alias].previous, aliases[alias].version]) == versions
    assert aliases["latest"].version == versions[-1]
    assert await library.verify() == []


async def test_sixteen_writers_of_one_name_and_one_alias(library: Library) -> None:
    await asyncio.gather(*(contest_in(library, me, ROUNDS) for me in range(WRITERS)))
    await check_contest(library)


async def test_sixteen_processes_on_one_file(tmp_path: str) -> None:
    stores = {"state": f"sqlite://{tmp_path}/state.db", "objects": f"folder://{tmp_path}/objects"}
    async with forks("tests.chaos.library_work") as forked:
        ended = await asyncio.gather(
            *(forked("contest", {**stores, "me": me, "rounds": ROUNDS}) for me in range(WRITERS))
        )
    assert ended == [0] * WRITERS
    async with open_key_value(stores["state"]) as key_value, open_objects(stores["objects"]) as objects:
        await check_contest(Library(key_value, objects))


async def test_of_sixteen_moves_from_one_version_one_wins(library: Library) -> None:
    for _ in range(WRITERS + 1):
        await library.add(network())
    await library.alias("digits@1", "production")

    async def move(version: int) -> int | None:
        try:
            return (await library.alias(f"digits@{version}", "production", expected=1)).version
        except Conflict:
            return None

    moved = await asyncio.gather(*(move(version) for version in range(2, WRITERS + 2)))
    (winner,) = [version for version in moved if version is not None]
    production = (await library.aliases("network", "digits"))["production"]
    assert (production.version, list(production.previous)) == (winner, [1])


async def test_garbage_is_collected_beside_writers(library_stores: tuple[KeyValue, Objects]) -> None:
    """Objects come, are dropped with their records and come again, while everything that is free at once goes."""
    namespace = uuid.uuid4().hex
    done = asyncio.Event()

    def another() -> Library:
        return Library(*library_stores, namespace=namespace)

    async def work(me: int) -> None:
        library = another()
        for turn in range(16):
            async with library.writing("test") as writer:
                weights = await writer.put_bytes(b"contested %d" % ((3 * me + turn) % 6))
                record = await writer.commit(network(f"mine-{me}", weights))
            assert await library.read(record.network.weights)
            if turn % 5:
                await library.remove(f"mine-{me}")

    async def collect() -> int:
        library, collected = another(), 0
        while not done.is_set():
            collected += (await library.gc(grace_s=0)).objects
        return collected

    collectors = [asyncio.create_task(collect()) for _ in range(2)]
    await asyncio.gather(*(work(me) for me in range(2)))
    done.set()
    assert sum(await asyncio.gather(*collectors)) > 0
    library = another()
    assert await library.verify() == []
    records = [await library.show(f"mine-{me}") for me in range(2)]
    assert {len(await library.read(record.network.weights)) for record in records} == {11}


async def test_writers_of_one_object_bring_it_together(library: Library) -> None:
    async def bring() -> pb.Object:
        async with library.writing("test") as writer:
            weights = await writer.put_bytes(b"popular" * 1000)
            await writer.commit(network("popular", weights))
            return weights

    weights = await asyncio.gather(*(bring() for _ in range(WRITERS)))
    assert len({found.sha256 for found in weights}) == 1
    assert len(await library.versions("network", "popular")) == WRITERS
    assert await library.verify() == []
