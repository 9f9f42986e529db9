"""Export and import between embedded libraries: equal bytes, and nothing but whole steps."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import stat
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import AlreadyExists, Corrupt, FailedPrecondition, InvalidInput, NotFound
from encephalon.library.archive import export, import_
from encephalon.library.library import Library
from encephalon.library.records import Reference
from encephalon.library.store.keys import object_key
from tests.unit.library.archives import holdings, members, objects_of, records_of
from tests.unit.library.family import WEIGHTS, add_family, embedded_library


@pytest.fixture
async def source(tmp_path: Path) -> AsyncIterator[Library]:
    async with embedded_library(tmp_path / "source") as library:
        await add_family(library)
        yield library


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[Library]:
    async with embedded_library(tmp_path / "target") as library:
        yield library


async def test_what_was_exported_is_there_after_the_import(source: Library, target: Library, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    exported = await export(source, ["digits"], tmp_path / "digits.enc", progress=lambda *done: told.append(done))
    assert told[-1][0] == told[-1][1] > 0
    assert exported.digest == hashlib.sha256((tmp_path / "digits.enc").read_bytes()).hexdigest()
    assert exported.size == (tmp_path / "digits.enc").stat().st_size
    assert exported.objects == 6
    told.clear()
    imported = await import_(target, exported.path, expect=exported.digest, progress=lambda *done: told.append(done))
    assert told[-1][0] == told[-1][1] > 0
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert sorted(map(str, imported.records)) == sorted(map(str, exported.records))
    assert imported.added == imported.records
    assert imported.digest == exported.digest
    assert await records_of(target) == await records_of(source)
    assert await objects_of(target) == await objects_of(source)
    assert (await target.show("digits")).created_by == (await source.show("digits")).created_by
    assert await target.read((await target.show("seeing")).network.weights) == WEIGHTS


async def test_exports_are_equal_byte_by_byte(source: Library, target: Library, tmp_path: Path) -> None:
    first = await export(source, ["digits"], tmp_path / "1")
    second = await export(source, ["seeing", "brain:digits@1", "digits-data"], tmp_path / "2")
    assert first.path.read_bytes() == second.path.read_bytes()
    await import_(target, first.path)
    third = await export(target, [Reference("digits", 1, "brain")], tmp_path / "3")
    assert third.path.read_bytes() == first.path.read_bytes()
    with zipfile.ZipFile(first.path) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert names == ["encephalon.json", *sorted(names[1:])]
        assert "records/brain/digits/00000001.pb" in names


async def test_archives_as_large_ones_are_written(
    source: Library, target: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above 4 GiB, or 65,535 members, a zip has other fields; here from 1,000 bytes and three members on."""
    usual = await export(source, ["digits"], tmp_path / "usual")
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1000)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 3)
    exported = await export(source, ["digits"], tmp_path / "large")
    monkeypatch.undo()
    assert exported.size > usual.size
    await import_(target, exported.path)
    assert await records_of(target) == await records_of(source)
    data = bytearray(exported.path.read_bytes())
    for place in range(len(data) - 98, len(data)):
        cut = exported.path.with_name("altered")
        cut.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        with contextlib.suppress(Corrupt, InvalidInput):
            assert not (await import_(target, cut)).added


async def test_an_import_again_changes_nothing(source: Library, target: Library, tmp_path: Path) -> None:
    exported = await export(source, ["digits"], tmp_path / "digits.enc")
    await import_(target, exported.path)
    before = await holdings(target)
    again = await import_(target, exported.path)
    assert not again.added
    assert await holdings(target) == before


async def test_an_import_gives_back_an_object_that_was_lost(source: Library, target: Library, tmp_path: Path) -> None:
    exported = await export(source, ["digits"], tmp_path / "digits.enc")
    await import_(target, exported.path)
    weights = (await target.show("seeing")).network.weights
    await target.objects.delete(object_key(weights.sha256))
    with pytest.raises(NotFound):
        await target.read(weights)
    assert not (await import_(target, exported.path)).added
    assert await target.read(weights) == WEIGHTS


async def test_only_the_difference_is_added(source: Library, target: Library, tmp_path: Path) -> None:
    await import_(target, (await export(source, ["seeing"], tmp_path / "1")).path)
    before = await records_of(target)
    imported = await import_(target, (await export(source, ["digits"], tmp_path / "2")).path)
    assert sorted(str(one) for one in imported.added) == ["brain:digits@1", "network:hearing@1"]
    after = await records_of(target)
    assert {key: after[key] for key in before} == before


async def test_without_parents(source: Library, target: Library, tmp_path: Path) -> None:
    alone = await export(source, ["digits"], tmp_path / "alone", with_parents=False)
    assert [str(one) for one in alone.records] == ["brain:digits@1"]
    assert alone.objects == 1, "the weights that the manifest pins"
    before = await holdings(target)
    with pytest.raises(FailedPrecondition, match="which is neither in it nor in this library; import that first"):
        await import_(target, alone.path)
    assert await holdings(target) == before
    await import_(target, (await export(source, ["seeing", "hearing"], tmp_path / "parents")).path)
    await import_(target, alone.path)
    assert await records_of(target) == await records_of(source)


async def test_a_number_that_another_record_has(source: Library, target: Library, tmp_path: Path) -> None:
    exported = await export(source, ["digits"], tmp_path / "digits.enc")
    await target.add(network("seeing"))
    before = await holdings(target)
    with pytest.raises(AlreadyExists, match="import it under another name"):
        await import_(target, exported.path)
    assert await holdings(target) == before
    imported = await import_(target, exported.path, rename={"seeing": "seeing-b", "brain:digits": "digits/b"})
    assert {"network:seeing-b@1", "brain:digits/b@1", "network:hearing@1"} <= {str(one) for one in imported.added}
    brain = await target.show("digits/b")
    assert brain.brain.networks["visual"].name == "seeing-b"
    assert sorted(parent.record.name for parent in brain.parents) == ["digits-scene", "hearing", "seeing-b"]
    assert (await target.show("seeing-b")).network.weights.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert not (await import_(target, exported.path, rename={"seeing": "seeing-b", "digits": "digits/b"})).added


async def test_only_what_the_archive_brings_is_renamed(source: Library, target: Library, tmp_path: Path) -> None:
    draft = network("seeing")
    draft.parents.add(role="previous").record.CopyFrom((await source.show("seeing@1")).id)
    await source.add(draft)
    await import_(target, (await export(source, ["seeing@1"], tmp_path / "first")).path)
    second = await export(source, ["seeing@2"], tmp_path / "second", with_parents=False)
    await import_(target, second.path, rename={"seeing": "other"})
    (parent,) = (await target.show("other@2")).parents
    assert parent.record.name == "seeing"


@pytest.mark.parametrize(
    ("rename", "says"),
    [
        ({"nothing": "x"}, "no record of that name"),
        ({"seeing": "hearing"}, "another network of that name"),
        ({"seeing": "../x"}, "is no name of a record"),
    ],
)
async def test_names_that_cannot_be_given(
    source: Library, target: Library, tmp_path: Path, rename: dict[str, str], says: str
) -> None:
    exported = await export(source, ["digits"], tmp_path / "digits.enc")
    before = await holdings(target)
    with pytest.raises(InvalidInput, match=says):
        await import_(target, exported.path, rename=rename)
    assert await holdings(target) == before


def network(name: str) -> pb.Record:
    draft = pb.Record(id=pb.Reference(kind=pb.KIND_NETWORK, name=name), description="another")
    draft.network.area, draft.network.code = "diagnostics", "001"
    return draft


async def test_nothing_lies_under_the_name_before_the_export_is_whole(source: Library, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    path = folder / "digits.enc"
    path.write_bytes(b"what was there before")

    def fail(done: int, total: int) -> None:
        if done > total / 2:
            assert path.read_bytes() == b"what was there before"
            raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="the disk is full"):
        await export(source, ["digits"], path, progress=fail)
    assert list(folder.iterdir()) == [path]
    assert path.read_bytes() == b"what was there before"
    await export(source, ["digits"], path)
    assert zipfile.is_zipfile(path)
    assert list(folder.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600


async def test_a_cancelled_export_leaves_nothing(source: Library, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    task: asyncio.Task[object]

    def cancel(done: int, total: int) -> None:
        if done == total:
            task.cancel()

    task = asyncio.ensure_future(export(source, ["digits"], folder / "digits.enc", progress=cancel))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not list(folder.iterdir())


async def test_what_cannot_be_exported(source: Library, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is a folder"):
        await export(source, ["digits"], tmp_path)
    for folder in ("", "/", ".."):
        with pytest.raises(InvalidInput, match="is a folder"):
            await export(source, ["digits"], Path(folder))
    with pytest.raises(InvalidInput, match="cannot be written"):
        await export(source, ["digits"], tmp_path / "nowhere" / "digits.enc")
    with pytest.raises(NotFound, match="digits"):
        await export(source, ["digit"], tmp_path / "x")
    with pytest.raises(InvalidInput, match="nothing was named"):
        await export(source, [], tmp_path / "x")
    weights = (await source.show("seeing")).network.weights
    await source.objects.put(object_key(weights.sha256), b"other bytes" * 60)
    with pytest.raises(Corrupt, match="library verify"):
        await export(source, ["digits"], tmp_path / "x")
    await source.objects.delete(object_key(weights.sha256))
    with pytest.raises(Corrupt, match="is not in the library, though a record names it"):
        await export(source, ["digits"], tmp_path / "x")
    assert not (tmp_path / "x").exists()


class CutOffError(Exception):
    pass


async def test_an_import_that_was_cut_off_can_be_done_again(source: Library, target: Library, tmp_path: Path) -> None:
    """At every step that tells of progress: the library is whole, and the same import ends it."""
    exported = await export(source, ["digits"], tmp_path / "digits.enc")
    count = 0

    def counting(done: int, total: int) -> None:
        nonlocal count
        count += 1

    async with embedded_library(tmp_path / "counted") as counted:
        await import_(counted, exported.path, progress=counting)
    for stop in range(count - 8, count):
        left = stop

        def stopping(done: int, total: int) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise CutOffError

        async with embedded_library(tmp_path / f"cut-{stop}") as cut:
            with pytest.raises(CutOffError):
                await import_(cut, exported.path, progress=stopping)
            await import_(cut, exported.path)
            assert await records_of(cut) == await records_of(source)


def test_members_are_named_by_kind_name_and_number(tmp_path: Path) -> None:
    async def names() -> set[str]:
        async with embedded_library(tmp_path / "named") as library:
            await library.add(network("a/b.c_d-e"))
            return set(members((await export(library, ["a/b.c_d-e"], tmp_path / "x")).path))

    assert asyncio.run(names()) == {"encephalon.json", "records/network/a%2Fb.c_d-e/00000001.pb"}
