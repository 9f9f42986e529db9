"""Asynchronous objects for programs without an event loop: one twin for all of them, and none written by hand.

    with blocking(open_something()) as thing:
        thing.method(...)            # waits for `await thing.method(...)`
        for item in thing.stream():  # an asynchronous generator
        with thing.block() as inner: # an asynchronous context manager; `inner` is blocking too

The loop runs in a thread of its own, so that what the object does in the background (keeping a lease alive, a watch)
goes on between two calls, and so that it works where a loop runs already, as in a notebook.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future, wait
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

__all__ = ["Blocking", "blocking", "twin"]

P = ParamSpec("P")
T = TypeVar("T")
_END = object()


class Blocking:
    """Has every attribute of the object behind it; see the module. Belongs to the block that made it."""

    def __init__(self, behind: object, loop: Loop) -> None:
        self.__behind = behind
        self.__loop = loop

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.__behind, name)
        return self.__loop.method(found) if inspect.isroutine(found) else found

    def __dir__(self) -> list[str]:
        return [name for name in dir(self.__behind) if not name.startswith("_")]

    def __repr__(self) -> str:
        return f"<blocking {self.__behind!r}>"


@contextmanager
def blocking(manager: AbstractAsyncContextManager[object]) -> Iterator[Blocking]:
    """Enters `manager` in a loop of its own and gives what it gives, to be called without `await`."""
    with Loop() as loop, loop.block(manager) as entered:
        yield entered


def twin(opening: Callable[P, AbstractAsyncContextManager[object]]) -> Callable[P, AbstractContextManager[Blocking]]:
    """Of a function that is used as `async with opening(...)`: the same for `with`, with the same parameters."""

    @wraps(opening)
    def open_blocking(*args: P.args, **kwargs: P.kwargs) -> AbstractContextManager[Blocking]:
        return blocking(opening(*args, **kwargs))

    open_blocking.__name__ = open_blocking.__qualname__ = f"{opening.__name__}_blocking"
    signature = inspect.signature(opening).replace(return_annotation=AbstractContextManager[Blocking])
    open_blocking.__signature__ = signature  # type: ignore[attr-defined]
    return open_blocking


class Loop:
    """An event loop in a thread, from the beginning of a block to its end."""

    def __enter__(self) -> Loop:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="encephalon-loop", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())

    def wait(self, call: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result; Ctrl-C cancels it and waits until it has tidied up."""
        if threading.current_thread() is self._thread:
            call.close()
            raise RuntimeError("a blocking call was made from inside the loop that it would wait for")
        if self._loop.is_closed():
            call.close()
            raise RuntimeError("the block has ended that this belongs to; call it inside of the `with`")
        told: Future[T] = Future()
        tasks: list[asyncio.Task[T]] = []

        def begin() -> None:
            tasks.append(self._loop.create_task(call))
            tasks[0].add_done_callback(partial(_tell, told))

        def give_up() -> None:
            if tasks:
                tasks[0].cancel()
            else:  # the interrupt came before the loop was told to begin
                call.close()
                told.set_exception(CancelledError())

        try:
            self._loop.call_soon_threadsafe(begin)
            return told.result()
        except KeyboardInterrupt:
            self._loop.call_soon_threadsafe(give_up)
            wait([told])
            raise

    def method(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function; what it gives is waited for, iterated over or entered without `await`."""

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            return self.settled(function(*args, **kwargs))

        return call

    def settled(self, result: Any) -> Any:
        if inspect.iscoroutine(result):
            return self.wait(result)
        if isinstance(result, AsyncIterator):
            return self.iterated(result)
        if isinstance(result, AbstractAsyncContextManager):
            return self.block(result)
        return result

    def iterated(self, items: AsyncIterator[T]) -> Iterator[T]:
        async def step() -> Any:
            return await anext(items, _END)

        try:
            while (item := self.wait(step())) is not _END:
                yield item
        finally:
            # Who outlives the block was closed with it.
            if isinstance(items, AsyncGenerator) and not self._loop.is_closed():
                self.wait(_closed(items))

    @contextmanager
    def block(self, manager: AbstractAsyncContextManager[Any]) -> Iterator[Blocking]:
        entered = self.wait(_entered(manager))
        try:
            yield Blocking(entered, self)
        except BaseException as error:
            if not self.wait(_left(manager, error)):
                raise
        else:
            self.wait(_left(manager, None))


def _tell(told: Future[T], task: asyncio.Task[T]) -> None:
    if task.cancelled():
        told.set_exception(CancelledError())
    elif (error := task.exception()) is not None:
        told.set_exception(error)
    else:
        told.set_result(task.result())


async def _closed(items: AsyncGenerator[Any, None]) -> None:
    await items.aclose()


async def _entered(manager: AbstractAsyncContextManager[T]) -> T:
    return await manager.__aenter__()


async def _left(manager: AbstractAsyncContextManager[Any], error: BaseException | None) -> bool:
    if error is None:
        return bool(await manager.__aexit__(None, None, None))
    return bool(await manager.__aexit__(type(error), error, error.__traceback__))
