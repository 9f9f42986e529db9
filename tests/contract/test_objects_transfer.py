"""Files into and out of every object store: whole or not at all, verified, and resumed where S3 lets us."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from minio import Minio
from urllib3 import PoolManager

from encephalon.core.errors import Conflict, Corrupt, FailedPrecondition, InvalidInput, NotFound, Unavailable
from encephalon.state import Objects, minio_upload, open_objects, read
from tests.contract.test_objects import MIB, damage, keys, noise
from tests.faults import Line, faulty
from tests.waiting import until

PART = minio_upload.PART_BYTES


def file(path: Path, size: int, seed: int = 0) -> str:
    """Writes noise and gives its digest."""
    block = noise(min(size, 4 * MIB), seed)
    data = (block * (size // max(1, len(block)) + 1))[:size]
    # Parts must not be alike, or one in the place of another would pass.
    parts = [data[start : start + MIB] + bytes([start // MIB % 256]) for start in range(0, size, MIB)]
    data = b"".join(parts)[:size]
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


@contextlib.contextmanager
def bucket(url: str) -> Iterator[tuple[Any, str]]:
    """The bucket of an S3 server beside our store."""
    parts = urlsplit(url)
    with PoolManager() as pool:
        secret = (parts.username or "", parts.password or "")
        yield Minio(f"{parts.hostname}:{parts.port}", *secret, secure=False, http_client=pool), parts.path.strip("/")


def unfinished(url: str) -> int:
    with bucket(url) as (client, name):
        return len(client._list_multipart_uploads(name, prefix="").uploads)


class Followed:
    """Progress that is checked while it comes."""

    def __init__(self, then: Callable[[int], None] = lambda done: None) -> None:
        self.told: list[int] = []
        self._thread = threading.get_ident()
        self._then = then

    def __call__(self, done: int) -> None:
        assert threading.get_ident() == self._thread
        assert not self.told or done >= self.told[-1]
        self.told.append(done)
        self._then(done)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the parts that are sent."""
    numbers: list[int] = []
    send = Minio._upload_part

    def counting(self: Minio, *args: Any) -> str:
        numbers.append(args[-1])
        return send(self, *args)

    monkeypatch.setattr(Minio, "_upload_part", counting)
    return numbers


@pytest.mark.parametrize("size", [0, 1, 3 * MIB, PART, PART + 1, 3 * PART + 12_345])
async def test_a_file_goes_in_and_comes_out(objects: Objects, tmp_path: Path, size: int) -> None:
    sha256 = file(tmp_path / "in", size)
    up, down = Followed(), Followed()
    put = await objects.upload("a/ж", tmp_path / "in", sha256=sha256, progress=up)
    assert (put.key, put.size, put.sha256) == ("a/ж", size, sha256)
    assert await objects.stat("a/ж") == put
    assert await keys(objects) == ["a/ж"]
    assert hashlib.sha256(await read(objects, "a/ж")).hexdigest() == sha256
    assert await objects.download("a/ж", tmp_path / "new" / "out", progress=down) == put
    assert (tmp_path / "new" / "out").read_bytes() == (tmp_path / "in").read_bytes()
    assert os.listdir(tmp_path / "new") == ["out"]
    assert up.told[-1:] in ([size], [])
    assert down.told[-1] == size
    assert up.told or not size


async def test_a_file_that_is_not_what_was_said_is_not_stored(
    objects: Objects, objects_url: str, tmp_path: Path
) -> None:
    await objects.put("a", b"before")
    for size in (1000, PART + 5):
        file(tmp_path / "in", size)
        with pytest.raises(InvalidInput, match="SHA-256"):
            await objects.upload("a", tmp_path / "in", sha256="0" * 64)
    assert await read(objects, "a") == b"before"
    assert await keys(objects) == ["a"]
    if not objects_url.startswith("folder"):
        assert await asyncio.to_thread(unfinished, objects_url) == 0


async def test_what_cannot_be_uploaded_is_refused(objects: Objects, tmp_path: Path) -> None:
    good = file(tmp_path / "in", 5)
    for name, sha256 in (("absent", good), (".", good), ("in", good.upper()), ("in", "")):
        with pytest.raises(InvalidInput):
            await objects.upload("a", tmp_path / name, sha256=sha256)
    with pytest.raises(InvalidInput):
        await objects.upload("", tmp_path / "in", sha256=good)
    assert await keys(objects) == []


_UPLOADER = """
import asyncio, sys, time
from pathlib import Path
from encephalon.state import open_objects
def progress(done):
    print(done, flush=True)
    if done >= int(sys.argv[4]):
        time.sleep(60)
async def main(url, path, sha256, _):
    async with open_objects(url) as objects:
        await objects.upload("a", Path(path), sha256=sha256, progress=progress)
asyncio.run(main(*sys.argv[1:]))
"""


async def killed_upload(url: str, path: Path, sha256: str, after: int) -> None:
    """An upload by another process that is killed when it has told of `after` bytes."""
    command = [sys.executable, "-c", _UPLOADER, url, str(path), sha256, str(after)]
    running = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert running.stdout is not None
    while int(await running.stdout.readline()) < after:
        pass
    running.kill()
    await running.communicate()


async def test_an_upload_goes_on_where_a_killed_one_has_stopped(
    objects: Objects, objects_url: str, tmp_path: Path, sent: list[int]
) -> None:
    size = 6 * PART + 77
    sha256 = file(tmp_path / "in", size)
    await killed_upload(objects_url, tmp_path / "in", sha256, 2 * PART)
    assert await keys(objects) == []
    followed = Followed()
    await objects.upload("a", tmp_path / "in", sha256=sha256, progress=followed)
    assert followed.told[-1] == size
    assert await objects.download("a", tmp_path / "out") == await objects.stat("a")
    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()
    if not objects_url.startswith("folder"):
        # Of seven parts two were safe at least, and no more than four others on their way.
        assert 1 <= len(sent) <= 5
        assert len(set(sent)) == len(sent)
        assert await asyncio.to_thread(unfinished, objects_url) == 0


async def cancelled_upload(objects: Objects, path: Path, sha256: str) -> None:
    task: asyncio.Task[Any] | None = None

    def stop(done: int) -> None:
        assert task is not None
        task.cancel()

    task = asyncio.create_task(objects.upload("a", path, sha256=sha256, progress=stop))
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancelled_upload_is_not_seen_and_goes_on(objects: Objects, objects_url: str, tmp_path: Path) -> None:
    sha256 = file(tmp_path / "in", 6 * PART)
    before = psutil.Process().num_fds()
    await cancelled_upload(objects, tmp_path / "in", sha256)
    assert await keys(objects) == []
    await objects.upload("a", tmp_path / "in", sha256=sha256)
    await objects.download("a", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()
    assert psutil.Process().num_fds() <= before + 8  # connections that are kept


async def test_an_upload_of_other_bytes_is_not_continued_but_given_up_when_stale(
    objects: Objects, objects_url: str, tmp_path: Path, sent: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if objects_url.startswith("folder"):
        pytest.skip("a folder has no unfinished uploads")
    first = file(tmp_path / "in", 4 * PART)
    await cancelled_upload(objects, tmp_path / "in", first)
    # The same beginning and another end, in the same file: the parts that are there would fit, their digest would not.
    data = (tmp_path / "in").read_bytes()[:-1] + b"!"
    with (tmp_path / "in").open("r+b") as changing:
        changing.write(data)
    sent.clear()
    await objects.upload("a", tmp_path / "in", sha256=hashlib.sha256(data).hexdigest())
    assert len(sent) == 5  # and its mark
    assert await read(objects, "a") == data
    assert await asyncio.to_thread(unfinished, objects_url) == 1
    monkeypatch.setattr(minio_upload, "STALE", timedelta(seconds=-3600))
    await objects.upload("a", tmp_path / "in", sha256=hashlib.sha256(data).hexdigest())
    assert await asyncio.to_thread(unfinished, objects_url) == 0


async def test_two_uploads_of_one_file_at_once(objects: Objects, tmp_path: Path) -> None:
    sha256 = file(tmp_path / "in", PART + 5)
    await asyncio.gather(*(objects.upload("a", tmp_path / "in", sha256=sha256) for _ in range(3)))
    assert hashlib.sha256(await read(objects, "a")).hexdigest() == sha256


@pytest.mark.parametrize(
    ("left", "resumed"),
    [(lambda data: data[: 5 * MIB + 3], 5 * MIB + 3), (lambda data: data, 12 * MIB), (lambda data: b"", None)],
)
async def test_a_download_goes_on_with_what_is_left(
    objects: Objects, tmp_path: Path, left: Callable[[bytes], bytes], resumed: int | None
) -> None:
    file(tmp_path / "in", 12 * MIB)
    data = (tmp_path / "in").read_bytes()
    await objects.put("a", data)
    (tmp_path / "out.part").write_bytes(left(data))
    followed = Followed()
    await objects.download("a", tmp_path / "out", progress=followed)
    assert (tmp_path / "out").read_bytes() == data
    assert not (tmp_path / "out.part").exists()
    if resumed is not None:
        assert followed.told[0] == resumed
    assert followed.told[-1] == len(data)


@pytest.mark.parametrize(
    "left",
    [
        lambda data: b"!" + data[1 : 3 * MIB],
        lambda data: data[: 3 * MIB - 1] + b"!",
        lambda data: data + b"longer",
        lambda data: bytes(len(data)),
    ],
)
async def test_a_part_that_is_damaged_or_of_other_bytes_is_replaced(
    objects: Objects, tmp_path: Path, left: Callable[[bytes], bytes]
) -> None:
    data = noise(4 * MIB)
    await objects.put("a", data)
    (tmp_path / "out.part").write_bytes(left(data))
    await objects.download("a", tmp_path / "out", progress=Followed())
    assert (tmp_path / "out").read_bytes() == data
    assert sorted(os.listdir(tmp_path))[-1] == "out"


async def test_damage_is_found_and_leaves_no_file(objects: Objects, objects_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "downloads"
    data = noise(3 * MIB)
    await objects.put("a", data)
    await asyncio.to_thread(damage, objects_url, "a", data[:-1] + b"?")
    for left in (None, data[:MIB]):
        if left is not None:
            (folder / "out.part").write_bytes(left)
        with pytest.raises(Corrupt, match="'a'"):
            await objects.download("a", folder / "out")
        assert os.listdir(folder) == []


async def test_what_is_not_there_or_cannot_be_written_is_said(objects: Objects, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"kept")
    with pytest.raises(NotFound, match="absent"):
        await objects.download("absent", tmp_path / "out")
    await objects.put("a", b"x")
    with pytest.raises(FailedPrecondition, match="cannot be written"):
        await objects.download("a", tmp_path / "out" / "below")
    assert (tmp_path / "out").read_bytes() == b"kept"
    assert not (tmp_path / "out.part").exists()


async def test_a_cancelled_download_leaves_a_part_that_goes_on(objects: Objects, tmp_path: Path) -> None:
    data = noise(40 * MIB)
    await objects.put("a", data)
    task: asyncio.Task[Any] | None = None

    def stop(done: int) -> None:
        assert task is not None
        task.cancel()

    task = asyncio.create_task(objects.download("a", tmp_path / "out", progress=Followed(stop)))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not (tmp_path / "out").exists()
    left = (tmp_path / "out.part").stat().st_size
    assert 0 < left < len(data)
    followed = Followed()
    await objects.download("a", tmp_path / "out", progress=followed)
    assert followed.told[0] == min(left, 16 * MIB)
    assert (tmp_path / "out").read_bytes() == data


async def test_a_file_that_becomes_shorter_is_not_stored(objects: Objects, objects_url: str, tmp_path: Path) -> None:
    sha256 = file(tmp_path / "in", 6 * PART)
    with pytest.raises(InvalidInput, match="shorter"):
        await objects.upload("a", tmp_path / "in", sha256=sha256, progress=lambda _: os.truncate(tmp_path / "in", 5))
    assert await keys(objects) == []
    if not objects_url.startswith("folder"):
        assert await asyncio.to_thread(unfinished, objects_url) == 0


async def test_a_cut_network_stops_a_transfer_that_goes_on_later(
    juicefs_url: str, tmp_path: Path, sent: list[int]
) -> None:
    sha256 = file(tmp_path / "in", 6 * PART)
    parts = urlsplit(f"{juicefs_url}-{uuid.uuid4().hex[:8]}")
    async with faulty(f"{parts.hostname}:{parts.port}") as line:
        url = f"minio://{parts.username}:{parts.password}@{line.address}{parts.path}"
        async with open_objects(url, deadline_s=1) as objects:
            with pytest.raises(Unavailable):
                await objects.upload("a", tmp_path / "in", sha256=sha256, progress=cutting(line))
            await line.mend()
            # Threads that were sending a part end a little later, and until then nobody else goes on.
            await until(lambda: unlocked(tmp_path / "in"))
            sent.clear()
            await objects.upload("a", tmp_path / "in", sha256=sha256)
            assert 1 <= len(sent) <= 5
            with pytest.raises((Unavailable, Conflict)):
                await objects.download("a", tmp_path / "out", progress=cutting(line))
            await line.mend()
            left = (tmp_path / "out.part").stat().st_size
            assert left > 0
            followed = Followed()
            await objects.download("a", tmp_path / "out", progress=followed)
            assert followed.told[0] == min(left, 16 * MIB)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()


def unlocked(path: Path) -> bool:
    with path.open("rb") as found, contextlib.suppress(BlockingIOError):
        fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def cutting(line: Line) -> Callable[[int], None]:
    """Cuts the network at the first progress; what is told later comes from threads that were under way."""
    cut: list[asyncio.Task[None]] = []

    def progress(_: int) -> None:
        if not cut:
            cut.append(asyncio.ensure_future(line.cut()))

    return progress


async def test_an_object_that_is_replaced_meanwhile_is_never_mixed(
    objects: Objects, objects_url: str, tmp_path: Path
) -> None:
    old, new = noise(12 * MIB, 1), noise(12 * MIB, 2)
    await objects.put("a", old)
    (tmp_path / "out.part").write_bytes(old[:MIB])
    begun, replaced = threading.Event(), threading.Event()

    def wait(done: int) -> None:
        # The first MiB is there; before the rest is asked for, another object takes its place.
        if not replaced.is_set():
            begun.set()
            assert other.result(20) is None

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def replace() -> None:
        async with open_objects(objects_url) as writer:
            await until(begun.is_set, within=20)
            await writer.put("a", new)
        replaced.set()

    other = asyncio.run_coroutine_threadsafe(replace(), loop)
    try:
        if objects_url.startswith("folder"):
            await objects.download("a", tmp_path / "out", progress=wait)
            assert (tmp_path / "out").read_bytes() == old
        else:
            with pytest.raises(Conflict):
                await objects.download("a", tmp_path / "out", progress=wait)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
    await objects.download("a", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == new


async def test_downloads_to_one_path_do_not_disturb_each_other(objects: Objects, tmp_path: Path) -> None:
    data = noise(9 * MIB)
    await objects.put("a", data)
    await asyncio.gather(*(objects.download("a", tmp_path / "out") for _ in range(4)))
    assert (tmp_path / "out").read_bytes() == data
    assert [name for name in os.listdir(tmp_path) if name.startswith("out")] == ["out"]


async def test_a_large_file_passes_in_little_memory(objects: Objects, tmp_path: Path) -> None:
    sha256, process = file(tmp_path / "in", 80 * MIB), psutil.Process()
    await objects.put("warm", noise(MIB))
    before, peak = process.memory_info().rss, 0

    async def measure() -> None:
        nonlocal peak
        while True:
            peak = max(peak, process.memory_info().rss)
            await asyncio.sleep(0.01)

    measuring = asyncio.create_task(measure())
    await objects.upload("large", tmp_path / "in", sha256=sha256)
    info = await objects.download("large", tmp_path / "out")
    measuring.cancel()
    assert info.sha256 == sha256
    assert info.size == 80 * MIB
    assert peak - before < 64 * MIB


async def test_a_closed_store_says_so(objects_url: str, tmp_path: Path) -> None:
    sha256 = file(tmp_path / "in", 2 * PART)
    async with open_objects(objects_url) as objects:
        await objects.put("a", b"x")
    with pytest.raises(Unavailable):
        await objects.upload("a", tmp_path / "in", sha256=sha256)
    with pytest.raises(Unavailable):
        await objects.download("a", tmp_path / "out")
