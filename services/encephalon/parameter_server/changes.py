"""Coroutines that wait for what other threads do."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["Changes"]

T = TypeVar("T")


class Changes:
    """`told` from any thread wakes the coroutines, of any event loop, that wait `until` something is so."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = set()

    def told(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, set()
        for loop, future in waiting:
            with contextlib.suppress(RuntimeError):  # the loop of who waited has been closed
                loop.call_soon_threadsafe(_wake, future)

    async def until(self, value: Callable[[], T | None]) -> T:
        """The first value that is not None; raises what `value` raises. The caller sets the time."""
        loop = asyncio.get_running_loop()
        while True:
            entry = (loop, loop.create_future())
            with self._lock:
                self._waiting.add(entry)  # before looking, so that no change is missed
            try:
                if (found := value()) is not None:
                    return found
                await entry[1]
            finally:
                with self._lock:
                    self._waiting.discard(entry)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
