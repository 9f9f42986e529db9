"""Awaiting with a limit."""

from __future__ import annotations

import asyncio
from typing import NoReturn

import pytest

from encephalon.core.inference.bounded import Overran, bounded
from tests.waiting import until


def soon(seconds: float = 5.0) -> float:
    return asyncio.get_running_loop().time() + seconds


async def at_once() -> int:
    return 1


async def failing() -> NoReturn:
    raise ValueError("at once")


async def forever(seen: list[str]) -> None:
    seen.append("begun")
    try:
        await asyncio.Event().wait()
    finally:
        seen.append("ended")


async def test_what_does_not_wait() -> None:
    assert await bounded(at_once(), soon()) == 1
    with pytest.raises(ValueError, match="at once"):
        await bounded(failing(), soon())


async def test_what_waits_often() -> None:
    async def waits() -> int:
        for _ in range(3):
            await asyncio.sleep(0)
            await asyncio.get_running_loop().run_in_executor(None, int)
        return 2

    assert await bounded(waits(), soon()) == 2


async def test_what_handles_what_is_thrown_into_it() -> None:
    async def handles() -> str:
        refused = asyncio.get_running_loop().create_future()
        refused.get_loop().call_soon(refused.set_exception, KeyError("no"))
        try:
            await refused
        except KeyError:
            await asyncio.sleep(0)
        return "handled"

    assert await bounded(handles(), soon()) == "handled"


async def test_the_limit() -> None:
    seen: list[str] = []
    with pytest.raises(Overran):
        await bounded(forever(seen), soon(0.01))
    assert seen == ["begun", "ended"]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_cancellation_from_outside_stays_one() -> None:
    seen: list[str] = []

    async def caller() -> None:
        await bounded(forever(seen), soon())

    task = asyncio.create_task(caller())
    await until(lambda: seen == ["begun"])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["begun", "ended"]
