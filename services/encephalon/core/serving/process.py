"""The outermost frame of a service: an error that the user can mend is one sentence on stderr, never a traceback."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Coroutine
from typing import Any

from encephalon.core.errors import EncephalonError, InvalidInput, InvalidManifest, NotFound

__all__ = ["run_service"]

LOG = logging.getLogger(__name__)

USAGE = 2
FAILURE = 1
INTERRUPTED = 130
"""128 + SIGINT, as a shell has it."""


def run_service(service: Coroutine[Any, Any, None]) -> int:
    """Runs `service` to its end and gives the exit code: 0; 2 when it was asked for what cannot be; else 1."""
    try:
        asyncio.run(service)
    except EncephalonError as error:
        sys.stderr.write(f"{error.message}\n")
        return USAGE if isinstance(error, (InvalidInput, InvalidManifest, NotFound)) else FAILURE
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception:
        LOG.critical("the service failed", exc_info=True)
        return FAILURE
    return 0
