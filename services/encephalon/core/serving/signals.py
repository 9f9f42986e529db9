"""The first SIGTERM or SIGINT asks the process to leave in order; a second one forces it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal

__all__ = ["until_signal"]

LOG = logging.getLogger(__name__)


async def until_signal() -> signal.Signals:
    """Returns the first SIGTERM or SIGINT. Whichever comes after it ends the process at once, with code 128 + its
    number.
    """
    loop = asyncio.get_running_loop()
    first: asyncio.Future[signal.Signals] = loop.create_future()

    def arrived(which: signal.Signals) -> None:
        if not first.done():
            first.set_result(which)
            return
        LOG.warning("a second signal came, leaving at once", extra={"signal": which.name})
        logging.shutdown()
        os._exit(128 + which)

    for which in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(which, arrived, which)
    return await first
