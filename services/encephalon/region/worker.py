"""The one thread in which a region computes."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["Worker"]

T = TypeVar("T")
Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[Any], Any], Any]


class Worker:
    """Runs calls one after another in a thread of its own.

    An executor of the standard library would do, but costs 10 us more per call (measured), and its thread, once it
    hangs in a network, would keep the process from ending; this one is a daemon.
    """

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    def run(self, call: Callable[[Any], T], argument: Any) -> asyncio.Future[T]:
        """The result of `call(argument)`. Cancelling the future discards the result; the call goes on."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put((loop, future, call, argument))
        return future

    def stop(self) -> None:
        """After what is queued. Does not wait for it. Stopping twice is harmless."""
        self._jobs.put(None)

    def _main(self) -> None:
        while (job := self._jobs.get()) is not None:
            loop, future, call, argument = job
            try:
                outcome, error = call(argument), None
            except BaseException as raised:  # noqa: BLE001 - it is raised again where it is awaited
                outcome, error = None, raised
            try:
                loop.call_soon_threadsafe(settle, future, outcome, error)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return
            del job, future, call, argument, outcome, error  # keeps no tensors while it waits


def settle(future: asyncio.Future[Any], outcome: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(outcome)
    else:
        future.set_exception(error)
