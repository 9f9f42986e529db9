"""Who is cancelled amid a read lets the thread end it: nothing is closed under a thread that reads it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from encephalon.state.folder import Folder
from encephalon.state.minio import MinioObjects
from encephalon.state.objects import ObjectInfo


class Slow:
    """An open file, and an open answer of a server, of 9 bytes."""

    def __init__(self) -> None:
        self.headers = {"content-length": "9"}
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.log: list[str] = []

    def seek(self, start: int) -> None:
        pass

    def read(self, count: int) -> bytes:
        self.begun.set()
        assert self.go_on.wait(20)
        self.log.append("read")
        return b"x"

    def close(self) -> None:
        self.log.append("closed")

    def release_conn(self) -> None:
        self.log.append("released")


def of_folder(slow: Slow, folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[bytes, None]:
    monkeypatch.setattr(Folder, "_open", lambda self, key: (slow, ObjectInfo(key, 9, "")))
    return Folder(folder, deadline_s=20).get("a")


def of_minio(slow: Slow, folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[bytes, None]:
    monkeypatch.setattr("minio.Minio.get_object", lambda *_: slow)
    return MinioObjects("127.0.0.1:1", "bucket", "access", "secret", secure=False, deadline_s=20).get("a")


@pytest.mark.parametrize("opened", [of_folder, of_minio])
async def test_a_thread_ends_its_read_before_the_file_is_closed(
    opened: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow()
    async with contextlib.aclosing(opened(slow, tmp_path, monkeypatch)) as chunks:  # type: ignore[operator]
        reading = asyncio.ensure_future(anext(chunks))
        assert await asyncio.to_thread(slow.begun.wait, 20)
        reading.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        assert slow.log == []
        slow.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await reading
    assert slow.log[:2] == ["read", "closed"]
