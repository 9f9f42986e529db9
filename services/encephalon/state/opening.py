"""Opens something in a thread for somebody who may be gone when it is open."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

__all__ = ["opened"]

_Opened = TypeVar("_Opened")


async def opened(
    run: Callable[[Callable[[], _Opened]], Awaitable[_Opened]],
    open_: Callable[[], _Opened],
    close: Callable[[_Opened], None],
) -> _Opened:
    """What `run(open_)` gives. The caller may be cancelled, or a deadline pass, while a thread opens: then it is
    closed.
    """
    lock, found, waited_for = threading.Lock(), list[_Opened](), True

    def step() -> _Opened:
        one = open_()
        with lock:
            found.append(one)
            if not waited_for:
                close(one)
        return one

    try:
        return await run(step)
    except BaseException:
        with lock:
            waited_for = False
            for one in found:
                close(one)
        raise
