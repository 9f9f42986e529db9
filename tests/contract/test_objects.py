"""What every object store must do: a folder, MinIO's gateway over JuiceFS, and SeaweedFS."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from minio import Minio
from urllib3 import PoolManager

from encephalon.core.errors import Corrupt, InvalidInput, NotFound, Unavailable
from encephalon.state import Objects, open_objects, read
from encephalon.state.names import name_of
from tests.waiting import until

MIB = 1024 * 1024
ODD_KEYS = [
    "plain",
    "a b",
    "ключ/значение",
    "鍵" * 60,
    "emoji 🧠",
    "100%",
    "%2e%2e",
    "..",
    "../../etc/passwd",
    "/absolute",
    "a/../b",
    ".hidden/.too",
    ".incoming",
    "slash/",
    "//",
    "a//b",
    "tilde~/x~~",
    "plus+and&question?hash#",
    "back\\slash",
    "line\nbreak\ttab\x00nul",
    "k" * 900,
    "seg/" * 190,
    "CON",
    "Case",
    "case",
    "e\u0301",
    "\u00e9",
]


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


async def chunks(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def keys(objects: Objects, prefix: str = "") -> list[str]:
    return sorted([entry.key async for entry in objects.list(prefix)])


@pytest.mark.parametrize("size", [0, 1, 65_536, 3 * MIB + 1])
@pytest.mark.parametrize("streamed", [False, True])
async def test_what_is_put_is_got(objects: Objects, size: int, streamed: bool) -> None:
    data = noise(size)
    put = await objects.put("a", chunks(data, 100_000) if streamed else data)
    assert (put.key, put.size, put.sha256) == ("a", size, hashlib.sha256(data).hexdigest())
    assert await objects.stat("a") == put
    assert await read(objects, "a") == data
    assert [(entry.key, entry.size) async for entry in objects.list("")] == [("a", size)]


async def test_odd_keys_live_side_by_side(objects: Objects) -> None:
    for key in ODD_KEYS:
        await objects.put(key, key.encode())
    assert await keys(objects) == sorted(ODD_KEYS)
    for key in ODD_KEYS:
        assert await read(objects, key) == key.encode()
    for key in ODD_KEYS:
        await objects.delete(key)
    assert await keys(objects) == []


@pytest.mark.parametrize("key", ["", "\ud800", "k" * 2000])
async def test_keys_that_cannot_be_are_refused(objects: Objects, key: str) -> None:
    with pytest.raises(InvalidInput):
        await objects.put(key, b"")
    with pytest.raises(InvalidInput):
        await read(objects, key)


async def test_an_object_and_others_below_its_name(objects: Objects) -> None:
    for key in ("a/b", "a", "a/b/c", "a/"):
        await objects.put(key, key.encode())
    assert await keys(objects) == ["a", "a/", "a/b", "a/b/c"]
    await objects.delete("a")
    assert await keys(objects, "a") == ["a/", "a/b", "a/b/c"]
    assert await read(objects, "a/b") == b"a/b"


@pytest.mark.parametrize("prefix", ["", "a", "a/", "a/b", "ab", "é", "x/" + "y" * 200, "x/" + "y" * 350, "none"])
async def test_a_list_has_the_prefix_only(objects: Objects, prefix: str) -> None:
    names = ["a", "a/b", "a/bc", "a/.d", "ab", "abc", "é", "éa", "e", "x/" + "y" * 500, "x/" + "y" * 199]
    for name in names:
        await objects.put(name, b"")
    assert await keys(objects, prefix) == sorted(name for name in names if name.startswith(prefix))


async def test_more_than_a_thousand_objects_are_listed(objects: Objects) -> None:
    names = [f"many/{number % 3}/{number:04}" for number in range(1_050)]
    gate = asyncio.Semaphore(8)

    async def put(name: str) -> None:
        async with gate:
            await objects.put(name, b"x")

    await asyncio.gather(*(put(name) for name in names))
    assert await keys(objects, "many/") == sorted(names)


@pytest.mark.parametrize(
    ("start", "length"),
    [(0, 0), (0, 1), (0, None), (5, 10), (999_999, 1), (999_999, 500), (1_000_000, None), (2_000_000, 5), (17, None)],
)
async def test_a_range_is_read_as_a_slice(objects: Objects, start: int, length: int | None) -> None:
    data = noise(1_000_000)
    await objects.put("a", data)
    got = b"".join([chunk async for chunk in objects.get("a", start, length)])
    assert got == data[start : None if length is None else start + length]


async def test_ranges_of_nothing_and_of_an_empty_object(objects: Objects) -> None:
    await objects.put("empty", b"")
    assert [chunk async for chunk in objects.get("empty", 0)] == []
    assert [chunk async for chunk in objects.get("empty", 3, 4)] == []
    for start, length in ((-1, None), (0, -1)):
        with pytest.raises(InvalidInput):
            await anext(objects.get("empty", start, length))


async def test_what_is_not_there_is_not_found(objects: Objects) -> None:
    await objects.put("folder/object", b"x")
    for key in ("absent", "folder", "folder/", "folder/object/below"):
        for length in (None, 0, 3):
            with pytest.raises(NotFound, match=key):
                _ = [chunk async for chunk in objects.get(key, 0, length)]
        with pytest.raises(NotFound, match=key):
            await objects.stat(key)
        await objects.delete(key)
    assert await keys(objects) == ["folder/object"]


async def test_a_put_takes_the_place_of_the_one_before(objects: Objects) -> None:
    await objects.put("a", noise(100_000))
    await objects.put("a", b"short")
    assert await read(objects, "a") == b"short"
    assert (await objects.stat("a")).size == 5


async def test_a_source_that_breaks_leaves_what_was_there(objects: Objects) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield noise(2 * MIB)
        raise OSError("the camera is gone")

    await objects.put("a", b"before")
    with pytest.raises(OSError, match="camera"):
        await objects.put("a", broken())
    with pytest.raises(OSError, match="camera"):
        await objects.put("b", broken())
    assert await read(objects, "a") == b"before"
    assert await keys(objects) == ["a"]


async def test_a_cancelled_put_leaves_what_was_there(objects: Objects) -> None:
    started = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield noise(2 * MIB)
        started.set()
        await asyncio.Event().wait()

    put = asyncio.create_task(objects.put("a", endless()))
    await started.wait()
    put.cancel()
    with pytest.raises(asyncio.CancelledError):
        await put
    assert await keys(objects) == []


async def test_a_reader_never_sees_half_an_object(objects: Objects) -> None:
    versions = {hashlib.sha256(data).hexdigest(): data for data in (noise(300_000, 1), noise(900_000, 2))}
    await objects.put("a", next(iter(versions.values())))
    writing = True

    async def write() -> None:
        nonlocal writing
        for _ in range(6):
            for data in versions.values():
                await objects.put("a", chunks(data, 50_000))
        writing = False

    async def look() -> int:
        seen = 0
        while writing:
            # `read` verifies the digest, so a mixture of two versions would be Corrupt. JuiceFS replaces in steps and
            # answers with a server error in between: that may be tried again, half an object may not.
            with contextlib.suppress(Unavailable):
                assert hashlib.sha256(await read(objects, "a")).hexdigest() in versions
                seen += 1
        return seen

    _, first, second = await asyncio.gather(write(), look(), look())
    assert first + second >= 4


def damage(url: str, key: str, data: bytes) -> None:
    """Puts other bytes under the digest of the ones that were put, as a bad disk would."""
    parts = urlsplit(url)
    if parts.scheme == "folder":
        path = Path(parts.path) / name_of(key)
        path.write_bytes(data + path.read_bytes()[-40:])
        return
    assert parts.username
    assert parts.password
    with PoolManager() as pool:
        client = Minio(f"{parts.hostname}:{parts.port}", parts.username, parts.password, secure=False, http_client=pool)
        bucket, name = parts.path.strip("/"), name_of(key)
        metadata = client.stat_object(bucket, name).metadata or {}
        kept = {what: metadata[f"x-amz-meta-{what}"] for what in ("sha256", "put")}
        client.put_object(bucket, name, io.BytesIO(data), len(data), metadata=kept)


@pytest.mark.parametrize("damaged", [b"a different thing", b"a", b""])
async def test_damage_is_found_on_a_whole_read(objects: Objects, objects_url: str, damaged: bytes) -> None:
    await objects.put("a", b"the right bytes")
    await asyncio.to_thread(damage, objects_url, "a", damaged)
    with pytest.raises(Corrupt, match="'a'"):
        await read(objects, "a")


async def test_a_reader_that_stops_early_leaves_the_store_usable(objects: Objects) -> None:
    await objects.put("a", noise(5 * MIB))
    for _ in range(20):
        async with contextlib.aclosing(objects.get("a")) as parts:
            await anext(parts)
    assert (await objects.stat("a")).size == 5 * MIB


async def test_many_readers_and_writers_at_once(objects: Objects) -> None:
    async def one(number: int) -> None:
        data = noise(200_000, number)
        await objects.put(f"{number}", chunks(data, 33_333))
        assert await read(objects, f"{number}") == data

    await asyncio.gather(*(one(number) for number in range(40)))


@contextlib.asynccontextmanager
async def process(program: str, url: str) -> AsyncIterator[asyncio.StreamReader]:
    """Runs a program and gives its output; leaving kills it with SIGKILL."""
    running = await asyncio.create_subprocess_exec(sys.executable, "-c", program, url, stdout=asyncio.subprocess.PIPE)
    assert running.stdout is not None
    try:
        yield running.stdout
    finally:
        running.kill()
        await running.communicate()


_WRITER = """
import asyncio, sys
from encephalon.state import open_objects
async def source():
    for number in range(10_000):
        yield bytes([number % 256]) * 1024 * 1024
        print(number, flush=True)
async def main(url):
    async with open_objects(url) as objects:
        await objects.put("a", source())
asyncio.run(main(sys.argv[1]))
"""


async def test_a_writer_killed_in_the_middle_leaves_nothing_visible(objects: Objects, objects_url: str) -> None:
    await objects.put("before", b"x")
    async with process(_WRITER, objects_url) as writer:
        for _ in range(20):
            assert await writer.readline()
    async with open_objects(objects_url) as again:
        assert await keys(again) == ["before"]
        with pytest.raises(NotFound):
            await again.stat("a")


_UPLOADER = """
import asyncio, sys
from encephalon.state import open_objects
async def main(url):
    async with open_objects(url) as objects:
        print("ready", flush=True)
        while True:
            await objects.put("a", bytes(48 * 1024 * 1024))
            await objects.delete("a")
asyncio.run(main(sys.argv[1]))
"""


async def test_an_upload_killed_at_any_moment_is_whole_or_absent(objects: Objects, objects_url: str) -> None:
    for delay in (0.05, 0.15, 0.3):
        async with process(_UPLOADER, objects_url) as writer:
            assert await writer.readline()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(writer.read(), delay)
        with contextlib.suppress(NotFound):
            assert (await objects.stat("a")).size == 48 * MIB
            assert len(await read(objects, "a")) == 48 * MIB


async def test_a_large_object_passes_in_little_memory(objects: Objects) -> None:
    size, process = 160 * MIB, psutil.Process()
    block = noise(MIB)

    async def source() -> AsyncIterator[bytes]:
        for _ in range(size // MIB):
            yield block

    await objects.put("warm", block)
    before, peak = process.memory_info().rss, 0

    async def measure() -> None:
        nonlocal peak
        while True:
            peak = max(peak, process.memory_info().rss)
            await asyncio.sleep(0.01)

    measuring = asyncio.create_task(measure())
    info = await objects.put("large", source())
    got = hashlib.sha256()
    async for chunk in objects.get("large"):
        assert len(chunk) <= MIB
        got.update(chunk)
    measuring.cancel()
    assert got.hexdigest() == info.sha256
    assert info.size == size
    assert peak - before < 64 * MIB


async def test_a_closed_store_says_so(objects_url: str) -> None:
    objects = open_objects(objects_url)
    async with objects:
        await objects.put("a", b"")
    await objects.__aexit__(None, None, None)
    with pytest.raises(Unavailable):
        await objects.stat("a")


async def test_two_stores_of_one_place_share_their_objects(objects: Objects, objects_url: str) -> None:
    async with open_objects(objects_url) as other:
        await objects.put("a", os.urandom(10))
        assert await read(other, "a") == await read(objects, "a")

        async def listed() -> bool:
            return await keys(other) == ["a"]

        await until(listed)
