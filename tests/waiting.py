"""Waits for a condition with a deadline: the one way in which a test waits for something outside its own control."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable

__all__ = ["until"]

INTERVAL_S = 0.02


async def until(predicate: Callable[[], object | Awaitable[object]], within: float = 5.0, what: str = "") -> object:
    """Polls `predicate` (plain or async) until it is true and returns its value; AssertionError after `within` s."""
    deadline = asyncio.get_running_loop().time() + within
    while True:
        value = predicate()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {within} s: {what or predicate}")
        await asyncio.sleep(INTERVAL_S)
