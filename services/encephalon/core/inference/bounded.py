"""Awaiting with a limit, for a path that seldom waits and hardly ever reaches the limit."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

__all__ = ["Overran", "bounded"]

T = TypeVar("T")


class Overran(Exception):
    """The coroutine was cancelled at its limit."""


@types.coroutine
def bounded(coroutine: Coroutine[Any, Any, T], at: float) -> Generator[Any, Any, T]:
    """`asyncio.timeout_at`, but what never waits costs no timer: the first step is taken before there is one."""
    try:
        waited = coroutine.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    overrun = Overrun()
    timer = asyncio.get_running_loop().call_at(at, overrun.stop)
    try:
        return (yield from resumed(coroutine, waited))
    except asyncio.CancelledError:
        if not overrun.settled():
            raise
        raise Overran from None
    finally:
        timer.cancel()


def resumed(coroutine: Coroutine[Any, Any, T], waited: Any) -> Generator[Any, Any, T]:
    """The rest of a coroutine that waits for `waited`, which `await` would refuse because it has begun."""
    while True:
        error: BaseException | None = None
        sent = None
        try:
            sent = yield waited
        except BaseException as thrown:  # noqa: BLE001 - it is the coroutine's to handle
            error = thrown
        try:
            waited = coroutine.send(sent) if error is None else coroutine.throw(error)
        except StopIteration as done:
            value: T = done.value
            return value


class Overrun:
    """Cancels the task that made it when its time is over."""

    __slots__ = ("_stopped", "_task")

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self._stopped = False

    def stop(self) -> None:
        if self._task is not None:
            self._stopped = True
            self._task.cancel()

    def settled(self) -> bool:
        """Whether the cancellation that arrived was ours alone, which is then taken back."""
        return self._stopped and self._task is not None and self._task.uncancel() == 0
