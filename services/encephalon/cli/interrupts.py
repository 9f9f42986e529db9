"""Ctrl-C and SIGTERM: the first asks a command to tidy up and end, the second makes it hurry."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["Interrupts", "run"]

T = TypeVar("T")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """`hurry` is called on the second signal; the command sets it to what ends its processes at once."""

    def __init__(self) -> None:
        self.hurry: Callable[[], None] = lambda: None
        self.happened = False
        self._task: asyncio.Task[Any] | None = None

    def watch(self) -> None:
        """Cancels the running task on the first signal."""
        self._task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._signalled)

    def _signalled(self) -> None:
        if self.happened:
            self.hurry()
        elif self._task is not None:
            self._task.cancel()
        self.happened = True


def run(command: Callable[[Interrupts], Coroutine[Any, Any, T]]) -> T:
    """Runs the command in an event loop of its own; KeyboardInterrupt when a signal ended it and it has tidied up."""
    interrupts = Interrupts()

    async def watched() -> T:
        interrupts.watch()
        return await command(interrupts)

    try:
        return asyncio.run(watched())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
