"""The blocking twin of an asynchronous object."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest

from encephalon.core.blocking import Blocking, blocking
from encephalon.core.errors import NotFound


class Shop:
    """What a twin must cope with: coroutines, streams, blocks, plain methods, plain values, errors."""

    town = "Delft"

    def __init__(self) -> None:
        self.ticks = 0
        self.closed = False
        self.tidied = threading.Event()
        self.ticked = threading.Event()
        self.waits = threading.Event()

    def double(self, number: int) -> int:
        """Twice the number."""
        return 2 * number

    async def sell(self, what: str, *, count: int = 1) -> str:
        await asyncio.sleep(0)
        if what == "air":
            raise NotFound("there is no air")
        return what * count

    async def stream(self, count: int) -> AsyncGenerator[int, None]:
        try:
            for number in range(count):
                await asyncio.sleep(0)
                yield number
        finally:
            self.closed = True

    @asynccontextmanager
    async def selling(self, what: str) -> AsyncIterator[Shop]:
        self.ticks += 1
        try:
            yield self
        except LookupError:
            self.ticks = -1
        finally:
            self.closed = True

    async def forever(self) -> None:
        try:
            self.waits.set()
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            self.tidied.set()


@asynccontextmanager
async def open_shop(shop: Shop) -> AsyncIterator[Shop]:
    async def tick() -> None:
        while True:
            shop.ticks += 1
            shop.ticked.set()
            await asyncio.sleep(0.001)

    ticking = asyncio.create_task(tick())
    yield shop
    ticking.cancel()


def test_every_kind_of_attribute() -> None:
    shop = Shop()
    with blocking(open_shop(shop)) as twin:
        assert twin.sell("ab", count=2) == "abab"
        assert twin.double(4) == 8
        assert twin.double.__doc__ == "Twice the number."
        assert twin.town == "Delft"
        assert list(twin.stream(3)) == [0, 1, 2]
        assert {"sell", "stream", "town"} <= set(dir(twin))
        assert not [name for name in dir(twin) if name.startswith("_")]
        with pytest.raises(AttributeError, match="nonsense"):
            _ = twin.nonsense


def test_errors_are_the_same_and_point_to_where_they_arose() -> None:
    with blocking(open_shop(Shop())) as twin, pytest.raises(NotFound, match="there is no air") as raised:
        twin.sell("air")
    assert raised.traceback[-1].name == "sell"


def test_a_stream_that_is_left_early_is_closed() -> None:
    shop = Shop()
    with blocking(open_shop(shop)) as twin:
        numbers = twin.stream(1000)
        assert next(numbers) == 0
        assert not shop.closed
        numbers.close()
        assert shop.closed


def test_what_outlives_its_block_says_so() -> None:
    shop = Shop()
    with blocking(open_shop(shop)) as twin:
        numbers = twin.stream(1000)
        assert next(numbers) == 0
    assert shop.closed
    numbers.close()
    with pytest.raises(RuntimeError, match="the block has ended"):
        twin.sell("a")


def test_a_block_gives_a_twin_and_sees_what_is_raised_in_it() -> None:
    shop = Shop()
    with blocking(open_shop(shop)) as twin:
        with twin.selling("bread") as inner:
            assert isinstance(inner, Blocking)
            assert inner.sell("x") == "x"
        assert shop.closed
        with twin.selling("bread"):
            raise LookupError("swallowed by the block")
        with pytest.raises(ValueError, match="not swallowed"), twin.selling("bread"):
            raise ValueError("not swallowed")


def test_the_background_goes_on_between_calls() -> None:
    shop = Shop()
    with blocking(open_shop(shop)):
        for _ in range(3):  # without a call, the loop's own tasks run on
            shop.ticked.clear()
            assert shop.ticked.wait(10)


async def test_it_works_where_a_loop_runs_already() -> None:
    with blocking(open_shop(Shop())) as twin:
        assert twin.sell("a") == "a"


def test_a_call_from_inside_the_loop_is_refused_not_dead() -> None:
    with blocking(open_shop(Shop())) as twin:

        class Asking(Shop):
            async def ask(self) -> str:
                return str(twin.sell("a"))

        with twin.selling("a"), pytest.raises(RuntimeError, match="from inside the loop"):
            twin._Blocking__loop.wait(Asking().ask())


def test_ctrl_c_cancels_the_call_and_waits_for_it() -> None:
    shop = Shop()
    with blocking(open_shop(shop)) as twin:

        def interrupt() -> None:
            shop.waits.wait(10)
            os.kill(os.getpid(), signal.SIGINT)

        interrupter = threading.Thread(target=interrupt)
        interrupter.start()
        with pytest.raises(KeyboardInterrupt):
            twin.forever()
        interrupter.join()
        assert shop.tidied.is_set()
        assert twin.sell("a") == "a"
