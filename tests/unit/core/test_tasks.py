from __future__ import annotations

import asyncio
import logging

import pytest

from encephalon.core.tasks import background, spawn
from tests.waiting import until

Ends = list[tuple[str, BaseException | None]]


async def test_an_eternal_task_runs_while_the_block_lasts() -> None:
    ends: Ends = []
    running = asyncio.Event()

    async def work() -> None:
        running.set()
        await asyncio.Event().wait()

    async with background("watch", work(), ended=lambda *end: ends.append(end)) as task:
        await running.wait()
        assert task.get_name() == "watch"
    assert task.cancelled()
    assert ends == []


async def test_an_eternal_task_that_fails_or_returns_is_an_error_by_its_name(caplog: pytest.LogCaptureFixture) -> None:
    ends: Ends = []

    async def fails() -> None:
        raise OSError("gone")

    async def returns() -> None:
        return None

    async with (
        background("fails", fails(), ended=lambda *end: ends.append(end)),
        background("returns", returns(), ended=lambda *end: ends.append(end)),
    ):
        await until(lambda: len(ends) == 2)
    assert [name for name, _ in ends] == ["fails", "returns"]
    assert isinstance(ends[0][1], OSError)
    assert ends[1][1] is None
    assert {record.levelno for record in caplog.records} == {logging.CRITICAL}


async def test_what_ends_by_itself_is_logged_only_when_it_fails(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        raise OSError("gone")

    async def works() -> None:
        return None

    tasks = [spawn("fails", fails()), spawn("works", works())]
    await asyncio.wait(tasks)
    await until(lambda: caplog.records)
    assert [record.message for record in caplog.records] == ["a background task failed"]
