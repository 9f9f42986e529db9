"""What a thread opens for somebody who is no longer there is closed, once."""

from __future__ import annotations

import asyncio
import threading

import pytest

from encephalon.state.opening import opened


async def test_what_nobody_waits_for_any_more_is_closed() -> None:
    begun, go_on, closed = threading.Event(), threading.Event(), threading.Event()
    log: list[str] = []

    def open_() -> str:
        begun.set()
        assert go_on.wait(5)
        return "file"

    def close(file: str) -> None:
        log.append(file)
        closed.set()

    task = asyncio.create_task(opened(asyncio.to_thread, open_, close))
    assert await asyncio.to_thread(begun.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not log
    go_on.set()
    assert await asyncio.to_thread(closed.wait, 5)
    assert log == ["file"]


async def test_what_is_waited_for_stays_open() -> None:
    log: list[str] = []
    assert await opened(asyncio.to_thread, lambda: "file", log.append) == "file"
    assert not log
