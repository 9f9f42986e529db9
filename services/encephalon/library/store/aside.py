"""Where objects are served from that are too large for the cache: the last few, for as long as the process lives."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import BinaryIO, Final

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.library.store.locks import locked

__all__ = ["Aside"]

_KEPT: Final = 4


class Aside:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own: tuple[Path, BinaryIO] | None = None
        self._kept: dict[str, Path] = {}
        self._turn = asyncio.Lock()

    async def fetch(self, object: pb.Object, download: Callable[[Path], Awaitable[object]]) -> Path:
        """A file that stays until three others were fetched."""
        async with self._turn:
            path = self._kept.pop(object.sha256, None)
            if path is None or not path.exists():
                path = await asyncio.to_thread(self._place) / object.sha256
                await download(path)
            self._kept[object.sha256] = path
            while len(self._kept) > _KEPT:
                self._kept.pop(next(iter(self._kept))).unlink(missing_ok=True)
            return path

    def clear(self) -> None:
        """Removes them."""
        own, self._own = self._own, None
        self._kept.clear()
        if own is not None:
            shutil.rmtree(own[0], ignore_errors=True)
            own[1].close()

    def _place(self) -> Path:
        """A folder of this process, held by a lock; those of processes that died are removed."""
        if self._own is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            with locked(self._folder / ".lock"):
                for left in self._folder.iterdir():
                    _remove_if_left(left)
                place = Path(tempfile.mkdtemp(dir=self._folder))
                lock = (place / "lock").open("wb")
                fcntl.flock(lock, fcntl.LOCK_EX)
            self._own = place, lock
        return self._own[0]


def _remove_if_left(folder: Path) -> None:
    with contextlib.suppress(OSError), (folder / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
