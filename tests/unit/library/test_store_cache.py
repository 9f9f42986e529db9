"""The cache of objects: bounded, verified, shared by processes."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import pytest

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import Corrupt, FailedPrecondition, InvalidInput, Unavailable
from encephalon.library.store.cache import Cache
from encephalon.library.store.locks import try_lock


class Origin:
    """Where objects come from; counts."""

    def __init__(self, folder: Path, max_bytes: int, spared_s: float = 0.0) -> None:
        self.cache = Cache(folder, max_bytes, spared_s=spared_s)
        self.downloads = 0
        self.most = 0
        """Bytes in the cache, when they were most."""

    async def get(self, data: bytes) -> bytes:
        return (await self.fetch(data)).read_bytes()

    async def fetch(self, data: bytes, instead: bytes | None = None) -> Path:
        async def download(path: Path) -> None:
            self.downloads += 1
            await asyncio.sleep(0)
            await asyncio.to_thread(path.write_bytes, data if instead is None else instead)

        path = await self.cache.fetch(object_of(data), download)
        self.most = max(self.most, self.cache.used())
        return path


def object_of(data: bytes) -> pb.Object:
    return pb.Object(sha256=hashlib.sha256(data).hexdigest(), size=len(data))


def data(number: int, size: int = 100) -> bytes:
    return bytes([number]) * size


async def test_what_was_fetched_once_is_there(tmp_path: Path) -> None:
    origin = Origin(tmp_path / "cache", 1000)
    for _ in range(3):
        assert await origin.get(data(1)) == data(1)
    assert await origin.get(b"") == b""
    assert (origin.downloads, origin.cache.used()) == (2, 100)
    path = await origin.fetch(data(1))
    assert (path.name, path.stat().st_mode & 0o222) == (object_of(data(1)).sha256, 0)
    origin.cache.clear()
    assert origin.cache.used() == 0
    assert await origin.get(data(1)) == data(1)


async def test_the_longest_unused_goes_first(tmp_path: Path) -> None:
    origin = Origin(tmp_path, 300)
    for number in (1, 2, 3, 1, 4, 1, 5):
        await origin.get(data(number))
    assert origin.downloads == 5
    for number in (1, 4, 5):
        await origin.get(data(number))
    assert origin.downloads == 5
    await origin.get(data(2))
    assert (origin.downloads, origin.most) == (6, 300)


async def test_it_is_never_above_its_bound(tmp_path: Path) -> None:
    origin = Origin(tmp_path, 1000, spared_s=60.0)
    await asyncio.gather(*(origin.get(data(number, 10 + number * 7 % 400)) for number in range(1, 60)))
    assert 500 < origin.most <= 1000
    again = Origin(tmp_path, 1000)
    for number in range(1, 60):
        assert await again.get(data(number, 10 + number * 7 % 400))
    assert 500 < again.most <= 1000


async def test_what_is_open_stays_readable_when_it_goes(tmp_path: Path) -> None:
    origin = Origin(tmp_path, 150)
    with (await origin.fetch(data(1))).open("rb") as file:
        await origin.get(data(2))
        assert file.read() == data(1)
    assert origin.cache.used() == 100


async def test_too_large_an_object_is_served_from_aside(tmp_path: Path) -> None:
    origin = Origin(tmp_path, 150)
    await origin.get(data(1))
    for number in range(2, 9):
        assert await origin.get(data(number, 1000)) == data(number, 1000)
    assert await origin.get(data(8, 1000)) == data(8, 1000)
    assert (origin.downloads, origin.cache.used()) == (8, 100)
    aside = [path for path in (tmp_path / ".aside").rglob("*") if path.stat().st_size == 1000]
    assert len(aside) == 4
    origin.cache.close()
    assert not [path for path in (tmp_path / ".aside").iterdir() if path.is_dir()]
    assert await origin.get(data(8, 1000)) == data(8, 1000)
    origin.cache.close()


async def test_what_died_aside_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".aside" / "left"
    left.mkdir(parents=True)
    (left / "lock").touch()
    origin = Origin(tmp_path, 10)
    await origin.get(data(1))
    assert not left.exists()
    origin.cache.close()


@pytest.mark.parametrize("change", [data(2), data(1) + b"x", b""])
async def test_a_file_that_was_changed_is_fetched_again(tmp_path: Path, change: bytes) -> None:
    origin = Origin(tmp_path, 1000)
    path = await origin.fetch(data(1))
    path.chmod(0o600)
    path.write_bytes(change)
    assert await origin.get(data(1)) == data(1)
    assert origin.downloads == 2


async def test_a_file_that_was_only_touched_is_verified_and_kept(tmp_path: Path) -> None:
    origin = Origin(tmp_path, 1000)
    path = await origin.fetch(data(1))
    os.utime(path)
    for _ in range(2):
        assert await origin.get(data(1)) == data(1)
    assert origin.downloads == 1


async def test_a_wrong_size_does_not_get_in(tmp_path: Path) -> None:
    origin = Origin(tmp_path, 1000)
    with pytest.raises(Corrupt, match="another size than its record says"):
        await origin.fetch(data(1), instead=b"short")
    assert origin.cache.used() == 0
    assert await origin.get(data(1)) == data(1)


async def test_a_download_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 150)

    async def fail(path: Path) -> None:
        await asyncio.to_thread(path.write_bytes, b"half")
        raise Unavailable("gone")

    with pytest.raises(Unavailable):
        await cache.fetch(object_of(data(1)), fail)
    origin = Origin(tmp_path, 150)
    assert await origin.get(data(2)) == data(2)
    assert [path for path in (tmp_path / ".incoming").iterdir() if path.suffix != ".lock"] == []


async def test_two_caches_of_one_folder_fetch_once(tmp_path: Path) -> None:
    first, second = Origin(tmp_path, 1000), Origin(tmp_path, 1000)
    await asyncio.gather(*(origin.get(data(1)) for origin in (first, second) for _ in range(5)))
    assert first.downloads + second.downloads == 1


async def test_what_others_are_fetching_counts(tmp_path: Path) -> None:
    origin = Origin(tmp_path, 150)
    other = object_of(data(9))
    lock = try_lock(tmp_path / ".incoming" / f"{other.sha256}.lock")
    assert lock is not None
    lock.write(b"100")
    lock.flush()
    assert await origin.get(data(1)) == data(1)  # no room beside it, so from aside
    assert origin.cache.used() == 0
    lock.close()  # it died
    assert await origin.get(data(2)) == data(2)
    assert origin.cache.used() == 100
    origin.cache.close()


def test_bad_places_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FailedPrecondition, match="cannot be written"):
        Cache(tmp_path / "file")
    with pytest.raises(InvalidInput, match="0 bytes or more"):
        Cache(tmp_path, -1)
