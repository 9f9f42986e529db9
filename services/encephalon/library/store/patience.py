"""Repeats a step that others disturb, with growing random pauses, for a bounded time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Final

__all__ = ["attempts"]

_FIRST_S: Final = 0.01
_LONGEST_S: Final = 0.5


async def attempts(within_s: float) -> AsyncIterator[bool]:
    """Each turn is one attempt; its value says whether it is the last."""
    loop = asyncio.get_running_loop()
    end, bound = loop.time() + within_s, _FIRST_S
    while loop.time() < end:
        yield False
        await asyncio.sleep(random.uniform(0, bound))  # noqa: S311 -- spreads writers, guards nothing
        bound = min(_LONGEST_S, bound * 1.6)
    yield True
