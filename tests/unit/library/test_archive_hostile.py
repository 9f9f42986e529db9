"""Archives that were cut off, altered, or made to do harm: refused with a sentence, and nothing is changed."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import random
import struct
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import Corrupt, EncephalonError, InvalidInput, Unsupported
from encephalon.library.archive import checking, contents, export, import_
from encephalon.library.archive.checking import checked
from encephalon.library.archive.layout import opened
from encephalon.library.archive.steps import Told
from encephalon.library.library import Library
from encephalon.library.store.progress import uncounted
from tests.unit.library.archives import Members, holdings, members, with_contents, written
from tests.unit.library.family import add_family, embedded_library


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    folder = tmp_path_factory.mktemp("exported")

    async def work() -> tuple[bytes, bytes]:
        async with embedded_library(folder) as library:
            await add_family(library, weights=b"few weights")
            whole = await export(library, ["digits"], folder / "digits.enc")
            small = await export(library, ["seeing"], folder / "seeing.enc", with_parents=False)
            return whole.path.read_bytes(), small.path.read_bytes()

    return asyncio.run(work())


@pytest.fixture(scope="module")
def exported(both: tuple[bytes, bytes]) -> bytes:
    return both[0]


@pytest.fixture(scope="module")
def small(both: tuple[bytes, bytes]) -> bytes:
    """One record with one object."""
    return both[1]


@pytest.fixture
def parts(exported: bytes, tmp_path: Path) -> Members:
    (tmp_path / "whole").write_bytes(exported)
    return members(tmp_path / "whole")


@pytest.fixture
async def library(tmp_path: Path) -> AsyncIterator[Library]:
    async with embedded_library(tmp_path / "target") as library:
        await library.add(pb.Record(id=pb.Reference(kind=pb.KIND_AREA, name="mine"), area=pb.Area(package="mine")))
        yield library


async def refused(library: Library, path: Path, error: type[EncephalonError], says: str, **options: str) -> None:
    before = await holdings(library)
    with pytest.raises(error) as told:
        await import_(library, path, **options)  # type: ignore[arg-type]
    assert says in str(told.value)
    assert await holdings(library) == before


async def read(path: Path) -> Members:
    """All that an import would take in."""
    with path.open("rb") as file:
        async with checked(file, expect=None, told=Told(uncounted)) as archive:
            found = {one: archive.record(one).SerializeToString(deterministic=True) for one in archive.order}
            for sha256 in archive.contents.objects:
                found[sha256] = b"".join([chunk async for chunk in archive.chunks(sha256)])
            return found


async def test_every_byte_that_is_altered_is_refused_or_means_nothing(small: bytes, tmp_path: Path) -> None:
    path = tmp_path / "whole"
    path.write_bytes(small)
    whole, chance = await read(path), random.Random(1)
    assert _read_now(small) == whole
    found = [_altered(small, position, chance.randrange(1, 256)) for position in range(len(small))]
    assert {position for position, one in enumerate(found) if one not in (None, whole)} == set()
    # What is left are dates, attributes and what the directory says again.
    assert found.count(None) > 0.8 * len(small)


def _altered(data: bytes, position: int, flipped: int) -> Members | None:
    """None: refused."""
    altered = bytearray(data)
    altered[position] ^= flipped
    try:
        return _read_now(bytes(altered))
    except EncephalonError:
        return None


def _read_now(data: bytes) -> Members:
    """As `read`, without a thread for each step: that would take minutes for so many."""
    file = io.BytesIO(data)
    with opened(file, len(data)) as archive:
        found = checking._contents(archive)
        references = checking._References(found)
        checking._read_records(archive, found, references)
        objects = {
            sha256: checking._read(archive, contents.object_path(sha256), contents.Item(sha256, size))
            for sha256, size in found.objects.items()
        }
        for sha256 in references.indexes:
            checking._read_index(archive, sha256, references)
        references.check()
        order = references.order()
        records = {one: checking._record(archive, one, found.records[one]) for one in order}
        return {**{one: record.SerializeToString(deterministic=True) for one, record in records.items()}, **objects}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_altered_files_change_nothing_in_a_library(exported: bytes, tmp_path: Path, data: st.DataObject) -> None:
    altered = bytearray(exported)
    for _ in range(data.draw(st.integers(1, 4))):
        altered[data.draw(st.integers(0, len(exported) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "altered"

    async def work() -> None:
        path.write_bytes(exported)
        whole = await read(path)
        path.write_bytes(bytes(altered))
        try:
            assert await read(path) == whole
        except EncephalonError:
            async with embedded_library(tmp_path / "target") as library:
                await refused(library, path, EncephalonError, "")

    asyncio.run(work())


async def test_cut_off_anywhere(exported: bytes, library: Library, tmp_path: Path) -> None:
    path = tmp_path / "cut"
    before = await holdings(library)
    for length in [0, 1, 21, 22, 100, *range(1000, len(exported), 997), len(exported) - 22, len(exported) - 1]:
        path.write_bytes(exported[:length])
        with pytest.raises(Corrupt, match="was cut off"):
            await import_(library, path)
    assert await holdings(library) == before


@pytest.mark.parametrize("change", ["before", "behind", "comment", "between"])
async def test_bytes_besides_the_members(exported: bytes, library: Library, tmp_path: Path, change: str) -> None:
    path = tmp_path / "more"
    end = exported[:-2] + b"\x04\x00more"
    start = struct.unpack("<I", exported[-6:-2])[0]
    moved = exported[:start] + b"more" + exported[start:-6] + struct.pack("<I", start + 4) + exported[-2:]
    path.write_bytes(
        {"before": b"more" + exported, "behind": exported + b"more", "comment": end, "between": moved}[change]
    )
    await refused(library, path, Corrupt, "is no archive of Encephalon, or was cut off")


async def test_another_file_than_expected(exported: bytes, library: Library, tmp_path: Path) -> None:
    path = tmp_path / "whole"
    path.write_bytes(exported)
    digest = hashlib.sha256(exported).hexdigest()
    await refused(library, path, Corrupt, "it is another file, or was altered", expect="0" * 64)
    await refused(library, path, InvalidInput, "give the 64 hexadecimal digits", expect=digest[:63])
    assert (await import_(library, path, expect=f"sha256:{digest.upper()}")).digest == digest


async def test_no_file(library: Library, tmp_path: Path) -> None:
    await refused(library, tmp_path / "nowhere", InvalidInput, "cannot be read")
    await refused(library, tmp_path, InvalidInput, "is not a file")
    os.mkfifo(tmp_path / "pipe")
    await refused(library, tmp_path / "pipe", InvalidInput, "is not a file")
    (tmp_path / "text").write_text("this is no archive, though it is long enough to be one")
    await refused(library, tmp_path / "text", Corrupt, "is no archive of Encephalon")


async def test_compressed_members_are_refused_before_they_grow(
    parts: Members, library: Library, tmp_path: Path
) -> None:
    bomb = with_contents({**parts, f"objects/{'0' * 64}": b"\0" * 50_000_000})
    path = written(tmp_path / "bomb", bomb, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    await refused(library, path, InvalidInput, "is compressed")


@pytest.mark.parametrize(
    "name",
    ["../climbs", "/etc/passwd", "objects/../../x", "records/./x", "C:/x", "a\\b", "objects//x", "objects/\x00hidden"],
)
async def test_names_that_lead_out(parts: Members, library: Library, tmp_path: Path, name: str) -> None:
    path = written(tmp_path / "climbing", {**parts, "objects/placeholder": b"x"})
    data = path.read_bytes()
    # `zipfile` will not write some of these.
    replaced = name.encode().ljust(len("objects/placeholder"), b"x")
    path.write_bytes(data.replace(b"objects/placeholder", replaced))
    await refused(library, path, InvalidInput, "which leads out of the archive")


async def test_a_name_twice(parts: Members, library: Library, tmp_path: Path) -> None:
    path = tmp_path / "twice"
    written(path, parts)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("encephalon.json", b"{}")
    await refused(library, path, InvalidInput, "twice")


async def test_more_members_than_allowed(
    parts: Members, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "many", parts)
    monkeypatch.setattr("encephalon.library.archive.layout.MAX_MEMBERS", len(parts) - 1)
    await refused(library, path, InvalidInput, "members, at most")
    data = bytearray(path.read_bytes())
    data[-10:-6] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    monkeypatch.undo()
    await refused(library, path, Corrupt, "its directory is not where it should be")


def _without(parts: Members, start: str) -> Members:
    return {name: data for name, data in parts.items() if not name.startswith(start)}


def _altered_object(parts: Members) -> Members:
    name = next(name for name in parts if name.startswith("objects/"))
    return {**parts, name: parts[name][:-1] + b"?"}


def _other_number(parts: Members) -> Members:
    return with_contents({name.replace("digits/00000001", "digits/00000002"): data for name, data in parts.items()})


def _circle(parts: Members) -> Members:
    scene = pb.Record.FromString(parts["records/scene/digits-scene/00000001.pb"])
    scene.parents.add(role="circle").record.CopyFrom(pb.Reference(kind=pb.KIND_BRAIN, name="digits", version=1))
    return with_contents({**parts, "records/scene/digits-scene/00000001.pb": scene.SerializeToString()})


def _other_size(parts: Members) -> Members:
    seeing = pb.Record.FromString(parts["records/network/seeing/00000001.pb"])
    seeing.network.weights.size += 1
    return with_contents({**parts, "records/network/seeing/00000001.pb": seeing.SerializeToString()})


def _no_index(parts: Members) -> Members:
    data = pb.Record.FromString(parts["records/data_set/digits-data/00000001.pb"])
    rubbish = b"\xff\xff\xff"
    data.data_set.splits[1].index.sha256, data.data_set.splits[1].index.size = hashlib.sha256(rubbish).hexdigest(), 3
    data = data.SerializeToString()
    name = f"objects/{hashlib.sha256(rubbish).hexdigest()}"
    return with_contents({**parts, "records/data_set/digits-data/00000001.pb": data, name: rubbish})


def _large_record(parts: Members) -> Members:
    scene = pb.Record.FromString(parts["records/scene/digits-scene/00000001.pb"])
    scene.scene.document = json.dumps(["x" * 300_000])
    return with_contents({**parts, "records/scene/digits-scene/00000001.pb": scene.SerializeToString()})


def _contents_of(change: Callable[[str], str]) -> Callable[[Members], Members]:
    return lambda parts: {**parts, "encephalon.json": change(parts["encephalon.json"].decode()).encode()}


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda parts: _without(parts, "encephalon.json"), Corrupt, "has no 'encephalon.json'"),
        (lambda parts: _without(parts, "records/brain"), Corrupt, "'records/brain/digits/00000001.pb' is missing"),
        (lambda parts: with_contents(_without(parts, "objects/")), Corrupt, "which it has not"),
        (
            lambda parts: with_contents(_without(parts, "records/run")),
            Corrupt,
            "which no record of it names",
        ),
        (lambda parts: {**parts, "README": b"hello"}, InvalidInput, "that its contents do not name"),
        (lambda parts: {**parts, "objects/": b""}, InvalidInput, "that its contents do not name"),
        (lambda parts: with_contents({**parts, f"objects/{'1' * 64}": b"x"}), Corrupt, "does not match its digest"),
        (_altered_object, Corrupt, "does not match its digest"),
        (_other_number, Corrupt, "holds"),
        (_circle, Corrupt, "made from each other"),
        (_other_size, Corrupt, "a record says"),
        (_no_index, Corrupt, "is no index of shards"),
        (_large_record, InvalidInput, "at most 262144 are allowed"),
        (
            lambda parts: with_contents({**parts, "records/run/digits-search/00000001.pb": b"\xff\xff"}),
            Corrupt,
            "is no record",
        ),
        (
            lambda parts: with_contents({**parts, "records/run/digits-search/00000001.pb": b""}),
            InvalidInput,
            "is no kind of record",
        ),
        (lambda parts: with_contents(parts, "encephalon library 2"), Unsupported, "'encephalon library 2'"),
        (
            _contents_of(lambda text: text.replace(' "records": [', ' "more": 1,\n "records": [')),
            Corrupt,
            "was altered",
        ),
        (_contents_of(lambda text: text.replace("\n", " ", 1)), Corrupt, "was altered"),
        (_contents_of(lambda text: "{}"), Corrupt, "is damaged"),
        (_contents_of(lambda text: "[" * 100_000), Corrupt, "is damaged"),
        (_contents_of(lambda text: text.replace('"size": ', '"size": -')), Corrupt, "is damaged"),
        (_contents_of(lambda text: text.replace('"size": ', '"size": 1')), Corrupt, "is incomplete"),
    ],
)
async def test_what_is_not_as_an_export_is(
    parts: Members,
    library: Library,
    tmp_path: Path,
    change: Callable[[Members], Members],
    error: type[EncephalonError],
    says: str,
) -> None:
    await refused(library, written(tmp_path / "changed", change(parts)), error, says)


async def test_members_that_share_their_bytes(parts: Members, library: Library, tmp_path: Path) -> None:
    """The directory names one place in the file twice: a small file that unpacks to a large one."""
    path = written(tmp_path / "shared", parts)
    data = bytearray(path.read_bytes())
    start = struct.unpack("<I", data[-6:-2])[0]
    places = list(_directory(data, start))
    data[places[2] + 42 : places[2] + 46] = data[places[1] + 42 : places[1] + 46]
    path.write_bytes(data)
    await refused(library, path, Corrupt, "overlap")


def _directory(data: bytearray, start: int) -> Iterator[int]:
    while data[start : start + 4] == b"PK\x01\x02":
        yield start
        name, extra, comment = struct.unpack("<3H", data[start + 28 : start + 34])
        start += 46 + name + extra + comment
