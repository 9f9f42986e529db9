"""The outermost frame of a service: an error that the user can mend is one sentence on stderr, never a traceback."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import logging
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from encephalon.core.errors import EncephalonError, InvalidInput, InvalidManifest, NotFound

__all__ = ["run_service"]

LOG = logging.getLogger(__name__)

USAGE = 2
FAILURE = 1
INTERRUPTED = 130
"""128 + SIGINT, as a shell has it."""
COLLECTIONS = (10_000, 20, 10)
"""When the collector looks for cycles. A request leaves none, and Python's own first threshold, 700 objects, is
reached by the requests that are in flight.
"""


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it is installed (small messages cost a tenth less), else asyncio's own loop."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop


def run_service(service: Coroutine[Any, Any, None]) -> int:
    """Runs `service` to its end and gives the exit code: 0; 2 when it was asked for what cannot be; else 1."""
    gc.set_threshold(*COLLECTIONS)
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(service)
    except EncephalonError as error:
        sys.stderr.write(f"{error.message}\n")
        return USAGE if isinstance(error, (InvalidInput, InvalidManifest, NotFound)) else FAILURE
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception:
        LOG.critical("the service failed", exc_info=True)
        return FAILURE
    return 0
