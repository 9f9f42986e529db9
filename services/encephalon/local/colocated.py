"""`python -m encephalon.local.colocated`: a coordinator and the regions colocated with it, in one process.

Takes what a coordinator takes. The regions whose `placement` is "colocated" become actors here, and activations go to
them by reference; the others are found where they announce themselves. The only module of `local` that imports torch.
"""

from __future__ import annotations

import logging
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from pydantic import Field

from encephalon.coordinator import CoordinatorSettings, coordinate
from encephalon.core import logs
from encephalon.core.metrics import metrics_served
from encephalon.core.serving import run_service, until_signal
from encephalon.library.brains import Brain, load_manifest
from encephalon.region import RegionActor
from encephalon.region.service import actor_of, settle_memory
from encephalon.region.settings import RegionSettings
from encephalon.state import Objects, open_key_value, open_objects

__all__: list[str] = []

LOG = logging.getLogger(__name__)


class ColocatedSettings(CoordinatorSettings):
    """Serves brains and, in the same process, their regions with `placement: colocated`."""

    objects: str = ""
    """Where weights named object:sha256:HEX are: folder:///PATH or minio://ACCESS:SECRET@HOST:PORT/BUCKET; empty has
    none.
    """

    weights: Path | None = None
    """The folder whose weight files a client may name when it loads a network; none by default."""

    threads: int | None = Field(default=None, ge=1, le=1024)
    """Threads with which torch computes for each region; the cores shared out among them when not given."""


async def serve(settings: ColocatedSettings) -> None:
    brains = {path: load_manifest(path) for path in settings.brain}
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_key_value(settings.state)) if settings.state else None
        objects = await stack.enter_async_context(open_objects(settings.objects)) if settings.objects else None
        actors = {brain.name: actors_of(settings, path, brain, objects) for path, brain in brains.items()}
        everyone = [actor for regions in actors.values() for replicas in regions.values() for actor in replicas]
        for actor in everyone:
            await stack.enter_async_context(actor)
        settle_memory()
        await stack.enter_async_context(metrics_served(settings.metrics_port))
        # Entered last and so left first: it finishes what is in flight while the actors still answer.
        running = await stack.enter_async_context(coordinate(settings, brains.values(), store=store, colocated=actors))
        LOG.info("serving", extra={"addresses": ", ".join(running.server.addresses), "actors": len(everyone)})
        await until_signal()


def actors_of(
    settings: ColocatedSettings, path: Path, brain: Brain, objects: Objects | None
) -> dict[str, list[RegionActor]]:
    """One actor per replica of every colocated region."""

    def actor(name: str) -> RegionActor:
        own = RegionSettings(brain=path, region=name, threads=settings.threads, weights=settings.weights)
        return actor_of(own, brain, brain.region(name), objects)

    return {
        region.name: [actor(region.name) for _ in range(region.replicas)]
        for region in brain.regions
        if region.placement == "colocated"
    }


def main() -> int:
    settings = ColocatedSettings.read_or_exit(program="python -m encephalon.local.colocated")
    logs.configure(level=settings.log_level, service="colocated")
    return run_service(serve(settings))


if __name__ == "__main__":
    sys.exit(main())
