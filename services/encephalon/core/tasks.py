"""Named background tasks with a guard: an eternal task that ends is an error, is logged by its name, and ends the
process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

__all__ = ["background", "end_process", "spawn"]

LOG = logging.getLogger(__name__)
Ended = Callable[[str, BaseException | None], None]


def end_process(name: str, error: BaseException | None) -> None:
    """What a guard does by default: the process cannot do its duty without the task, so whoever supervises it starts
    another.
    """
    logging.shutdown()
    os._exit(1)


_running: set[asyncio.Task[Any]] = set()


def spawn(name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Starts a task that may end. It is kept alive until then, and an error of its is logged by `name`."""
    task = asyncio.create_task(work, name=name)
    _running.add(task)
    task.add_done_callback(_finished)
    return task


def _finished(task: asyncio.Task[None]) -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        LOG.error("a background task failed", extra={"task": task.get_name()}, exc_info=error)


@contextlib.asynccontextmanager
async def background(
    name: str, work: Coroutine[Any, Any, None], *, ended: Ended = end_process
) -> AsyncIterator[asyncio.Task[None]]:
    """Runs the eternal `work` while the block lasts, and cancels it afterwards. If it ends before, `ended(name, error)`
    is called.
    """
    leaving = False

    def guard(task: asyncio.Task[None]) -> None:
        if leaving:
            return
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        LOG.critical("an eternal task ended", extra={"task": name}, exc_info=error)
        ended(name, error)

    task = asyncio.create_task(work, name=name)
    task.add_done_callback(guard)
    try:
        yield task
    finally:
        leaving = True
        task.cancel()
        await asyncio.wait([task])
