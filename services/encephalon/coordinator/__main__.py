"""`python -m encephalon.coordinator --brain BRAIN.yaml --state sqlite:///PATH`"""

from __future__ import annotations

import gc
import logging
import sys
from contextlib import AsyncExitStack

from encephalon.coordinator.lifetime import coordinate
from encephalon.coordinator.settings import CoordinatorSettings
from encephalon.core import logs
from encephalon.core.metrics import metrics_served
from encephalon.core.serving import run_service, until_signal
from encephalon.library.brains import load_manifest
from encephalon.state import open_key_value

LOG = logging.getLogger(__name__)


async def serve(settings: CoordinatorSettings) -> None:
    brains = [load_manifest(path) for path in settings.brain]
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_key_value(settings.state)) if settings.state else None
        await stack.enter_async_context(metrics_served(settings.metrics_port))
        running = await stack.enter_async_context(coordinate(settings, brains, store=store))
        # What is loaded stays, so the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        LOG.info("serving", extra={"addresses": ", ".join(running.server.addresses)})
        await until_signal()


def main() -> int:
    settings = CoordinatorSettings.read_or_exit(program="python -m encephalon.coordinator")
    logs.configure(level=settings.log_level, service="coordinator")
    return run_service(serve(settings))


if __name__ == "__main__":
    sys.exit(main())
