"""Archives between stores of different makes, and imports that are killed."""

from __future__ import annotations

import itertools
import os
import random
import signal
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import psutil
import pytest

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.library.archive import export, import_
from encephalon.library.library import Library
from encephalon.library.lineage import lineage
from encephalon.state import open_key_value, open_objects
from tests.chaos.library_work import library_at
from tests.dying import Doom, When
from tests.forks import forks
from tests.unit.library.archive_work import take_in
from tests.unit.library.archives import objects_of, records_of
from tests.unit.library.family import add_family, embedded_library

MIB = 1 << 20
WHEN: Sequence[When] = ("before", "amid", "behind")


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[Library]:
    async with embedded_library(tmp_path / "embedded") as library:
        yield library


@pytest.fixture(params=["juicefs", "seaweedfs"])
def urls(request: pytest.FixtureRequest) -> tuple[str, str]:
    bucket = f"{request.getfixturevalue(f'{request.param}_url')}-{uuid.uuid4().hex[:8]}"
    return request.getfixturevalue("etcd_url"), bucket


@pytest.fixture
async def cluster(urls: tuple[str, str]) -> AsyncIterator[Library]:
    async with open_key_value(urls[0]) as key_value, open_objects(urls[1]) as objects:
        yield Library(key_value, objects, namespace=uuid.uuid4().hex)


async def test_there_and_back_equal_byte_by_byte(embedded: Library, cluster: Library, tmp_path: Path) -> None:
    # One object above what is held in memory at once, so that it goes in parts.
    made = await add_family(embedded, weights=random.Random(1).randbytes(2 * MIB))
    there = await export(embedded, ["digits"], tmp_path / "there")
    imported = await import_(cluster, there.path, expect=there.digest)
    assert len(imported.added) == 6
    for record in made.values():
        assert await cluster.show(f"{record.id.name}@1") == record
    assert await cluster.verify() == []
    assert (await lineage(cluster, "seeing")).nodes == (await lineage(embedded, "seeing")).nodes
    back = await export(cluster, ["digits"], tmp_path / "back")
    assert back.digest == there.digest
    async with embedded_library(tmp_path / "second") as second:
        await import_(second, back.path, expect=there.digest)
        assert await records_of(second) == await records_of(embedded)
        assert await objects_of(second) == await objects_of(embedded)
        again = await export(second, ["digits"], tmp_path / "again")
    assert again.path.read_bytes() == there.path.read_bytes()


async def killed_imports(folder: Path, exported: Path, step: int) -> None:
    """An import is killed at its calls to the stores, each time into a new library; then it is done once more."""
    doom = Doom(0)
    await take_in(f"sqlite://{folder}/whole.db", f"folder://{folder}/whole", str(exported), doom=doom)
    async with library_at(f"sqlite://{folder}/whole.db", f"folder://{folder}/whole") as whole:
        records = await records_of(whole)
    kills = list(itertools.product(range(1, doom.calls + 1), WHEN))
    random.Random(5).shuffle(kills)
    statuses: list[int] = []
    async with forks("tests.unit.library.archive_work") as forked:
        for number, (call, when) in enumerate(kills[::step]):
            state, objects = f"sqlite://{folder}/{number}.db", f"folder://{folder}/{number}"
            work = {"state": state, "objects": objects, "path": str(exported), "call": call, "when": when}
            statuses.append(await forked("take_in", work))
            async with library_at(state, objects) as library:
                assert await library.verify() == [], (call, when)
                await import_(library, exported)
                assert await records_of(library) == records
                assert await library.verify() == []
    assert set(statuses) <= {0, -signal.SIGKILL}
    assert statuses.count(-signal.SIGKILL) > 0.6 * len(statuses)


@pytest.mark.slow
async def test_a_killed_import_leaves_a_whole_library(embedded: Library, tmp_path: Path) -> None:
    await add_family(embedded)
    exported = await export(embedded, ["digits"], tmp_path / "digits.enc")
    await killed_imports(tmp_path, exported.path, step=29)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_an_import_killed_at_every_step_leaves_a_whole_library(embedded: Library, tmp_path: Path) -> None:
    await add_family(embedded)
    exported = await export(embedded, ["digits"], tmp_path / "digits.enc")
    await killed_imports(tmp_path, exported.path, step=1)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_large_objects_pass_through_little_memory(embedded: Library, cluster: Library, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    with weights.open("wb") as file:
        for _ in range(64):
            file.write(os.urandom(MIB))
    draft = pb.Record(id=pb.Reference(kind=pb.KIND_NETWORK, name="large"))
    draft.network.area, draft.network.code, draft.network.format = "vision", "001", "safetensors"
    async with embedded.writing("add") as writer:
        draft.network.weights.CopyFrom(await writer.put_file(weights))
        await writer.commit(draft)
    process, most = psutil.Process(), 0

    def watch(done: int, total: int) -> None:
        nonlocal most
        most = max(most, process.memory_info().rss)

    idle = process.memory_info().rss
    there = await export(embedded, ["large"], tmp_path / "there", progress=watch)
    await import_(cluster, there.path, progress=watch)
    back = await export(cluster, ["large"], tmp_path / "back", progress=watch)
    assert back.digest == there.digest
    assert most - idle < 48 * MIB
