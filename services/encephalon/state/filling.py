"""Fills the file of a download with an object, beginning with what an earlier attempt has left."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from encephalon.state.objects import ObjectInfo, Progress
from encephalon.state.target import Target

__all__ = ["fill"]

_RESUMED_BYTES: Final = 16 * 1024 * 1024


async def fill(
    target: Target,
    info: ObjectInfo,
    *,
    step: Callable[..., Awaitable[None]],
    fetch: Callable[[Progress], Awaitable[None]],
    progress: Progress,
) -> bool:
    """Whether the object's bytes are in the file now.

    `step` runs one of the target's methods in a thread; `fetch` writes all behind `target.size` and tells how far it
    is.
    """
    told = 0

    def tell(done: int) -> None:
        nonlocal told
        told = max(told, done)
        progress(told)

    if target.left > info.size:
        await step(target.empty)
    while target.size < target.left:
        await step(target.resume, _RESUMED_BYTES)
        tell(target.size)
    resumed = target.size > 0
    await fetch(tell)
    if resumed and target.sha256 != info.sha256:
        # What was left is of other bytes or damaged; or the object is, which only all of it anew can show.
        await step(target.empty)
        await fetch(tell)
    tell(target.size)
    return target.sha256 == info.sha256
