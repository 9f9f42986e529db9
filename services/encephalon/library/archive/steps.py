"""Long work on a file, cut into steps that a thread does one after the other."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import BinaryIO, Final, ParamSpec, TypeVar

from encephalon.library.store.progress import Counted
from encephalon.state import spool

__all__ = ["STEP_BYTES", "Told", "digest", "finished"]

STEP_BYTES: Final = 1024 * 1024

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class Told:
    """Counts the bytes that are done."""

    def __init__(self, progress: Counted, total: int = 0) -> None:
        self.total = total
        self._progress = progress
        self._done = 0

    def add(self, count: int) -> None:
        self._done += count
        self._progress(min(self._done, self.total), self.total)

    def within(self, size: int) -> Callable[[int], None]:
        """For a part of `size` bytes that says how much of it is done; at its end all of it counts."""
        seen = 0

        def told(done: int) -> None:
            nonlocal seen
            step, seen = max(0, min(done, size) - seen), max(seen, min(done, size))
            self.add(step)

        return told


async def finished(step: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
    """Runs a step in a thread and, when cancelled, still waits for its end: nobody may close a file under it."""
    return await spool.finished(asyncio.to_thread(step, *args, **kwargs))


async def digest(file: BinaryIO, told: Told | None = None) -> str:
    """SHA-256 of a whole file."""
    found = hashlib.sha256()

    def step() -> int:
        chunk = file.read(STEP_BYTES)
        found.update(chunk)
        return len(chunk)

    await finished(file.seek, 0)
    while size := await finished(step):
        if told is not None:
            told.add(size)
    return found.hexdigest()
