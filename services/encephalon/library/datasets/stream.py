"""Items that are made from shards, for who waits with `await` and for who does not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeVar

from encephalon.core.errors import FailedPrecondition
from encephalon.library.datasets.order import Places
from encephalon.library.datasets.shelf import OpenShard

__all__ = ["Home", "Stream", "Stretch"]

T = TypeVar("T")

TURN: Final = 64
"""Items between two turns of the loop, so that who takes them without pause does not hold up what is fetched ahead."""

Shards = dict[int, OpenShard]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Samples that need the same shards open, and the shards that will be wanted behind them."""

    places: Places
    wanted: Sequence[int]
    soon: Sequence[int]


class Home:
    """The event loop, and the process, that a data set was opened in."""

    def __init__(self) -> None:
        self._loop, self._process = asyncio.get_running_loop(), os.getpid()

    def wait(self, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of a coroutine that runs there. Raises `FailedPrecondition` where waiting would never end."""
        if self._process != os.getpid():
            raise FailedPrecondition("a data set that was opened before a fork is not there behind it; open it again")
        if self._loop.is_closed():
            raise FailedPrecondition("the data set is closed; read it within its block")
        if _running_loop() is self._loop:
            raise FailedPrecondition("a data set that was opened in this event loop is read with `async for` there")
        return asyncio.run_coroutine_threadsafe(begin(), self._loop).result()


class Stream(Generic[T]):
    """Iterate over it with `async for` in the loop that opened the data set, or with `for` in any other thread. It may
    be iterated over again, from its beginning."""

    def __init__(
        self,
        stretches: Callable[[], Iterator[Stretch]],
        take: Callable[[Sequence[int], Sequence[int]], Coroutine[Any, Any, Shards]],
        make: Callable[[], Callable[[Shards, Places], Iterator[T]]],
        home: Home,
        length: int,
    ) -> None:
        self._stretches, self._take, self._make, self._home, self._length = stretches, take, make, home, length

    def __len__(self) -> int:
        return self._length

    async def __aiter__(self) -> AsyncIterator[T]:
        made = self._make()
        for stretch in self._stretches():
            shards = await self._take(stretch.wanted, stretch.soon)
            for at, item in enumerate(made(shards, stretch.places)):
                if at % TURN == 0:
                    await asyncio.sleep(0)
                yield item

    def __iter__(self) -> Iterator[T]:
        made = self._make()
        for stretch in self._stretches():
            shards = self._home.wait(partial(self._take, stretch.wanted, stretch.soon))
            yield from made(shards, stretch.places)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
