"""Where objects are served from that are too large for the cache: the last few, for as long as the process lives."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import shutil
import tempfile
import time
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import BinaryIO, Final

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.library.store.locks import locked

__all__ = ["Aside"]

_KEPT: Final = 4


class Aside:
    def __init__(self, folder: Path, spared_s: float) -> None:
        self._folder = folder
        self._spared_s = spared_s
        self._own: Path | None = None
        self._remove: Callable[[], object] = lambda: None
        self._kept: dict[str, tuple[Path, float]] = {}
        """The longest unused first, with when it was asked for last."""
        self._turn = asyncio.Lock()

    async def fetch(self, object: pb.Object, download: Callable[[Path], Awaitable[object]]) -> Path:
        """A file that stays for some seconds, and until three others were fetched."""
        async with self._turn:
            path, _ = self._kept.pop(object.sha256, (None, 0.0))
            if path is None or not path.exists():
                path = await asyncio.to_thread(self._place) / object.sha256
                await download(path)
            now = time.monotonic()
            self._kept[object.sha256] = path, now
            for sha256, (old, used) in list(self._kept.items())[:-_KEPT]:
                if used <= now - self._spared_s:
                    del self._kept[sha256]
                    old.unlink(missing_ok=True)
            return path

    def clear(self) -> None:
        """Removes them."""
        self._own = None
        self._kept.clear()
        self._remove()

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
            self._own, self._remove = place, weakref.finalize(self, _remove, place, lock)
        return self._own


def _remove(folder: Path, lock: BinaryIO) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lock.close()


def _remove_if_left(folder: Path) -> None:
    with contextlib.suppress(OSError), (folder / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
