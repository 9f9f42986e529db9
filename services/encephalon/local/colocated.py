"""`python -m encephalon.local.colocated`: a coordinator and the regions colocated with it, in one process.

Takes what a coordinator takes. The regions whose `placement` is "colocated" become actors here, and activations go to
them by reference; the others are found where they announce themselves. With `hosting` the only module of `local` that
imports torch.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path

from pydantic import Field

from encephalon.coordinator import CoordinatorSettings, coordinate
from encephalon.core import logs
from encephalon.core.errors import InvalidInput
from encephalon.core.metrics import metrics_served
from encephalon.core.serving import run_service, until_signal
from encephalon.core.tasks import background
from encephalon.library.brains import Brain, Region, load_manifest
from encephalon.library.brains.releases import records_of, wanted
from encephalon.library.records import Reference
from encephalon.library.store.below import objects_of
from encephalon.local.hosting import Hosted
from encephalon.region import RegionActor
from encephalon.region.service import actor_of, followed_actor, settle_memory
from encephalon.region.settings import RegionSettings
from encephalon.state import KeyValue, Objects, open_key_value, open_objects

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

    colocate: bool = False
    """Every region of the brains that are followed lives here, whatever their manifests say."""

    replicas: dict[str, int] = Field(default_factory=dict)
    """Actors per region of the brains that are followed, over what their manifests say: {"visual": 2}."""


async def serve(settings: ColocatedSettings) -> None:
    brains = {path: load_manifest(path) for path in settings.brain}
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_key_value(settings.state)) if settings.state else None
        objects = await stack.enter_async_context(open_objects(settings.objects)) if settings.objects else None
        actors = {brain.name: actors_of(settings, path, brain, objects) for path, brain in brains.items()}
        everyone = [actor for regions in actors.values() for replicas in regions.values() for actor in replicas]
        for actor in everyone:
            await stack.enter_async_context(actor)
        hosting = {
            reference.name: await stack.enter_async_context(hosted(settings, reference, store, objects))
            for reference in [Reference.parse(text, "brain") for text in settings.follow]
        }
        settle_memory()
        await stack.enter_async_context(metrics_served(settings.metrics_port))
        # Entered last and so left first: it finishes what is in flight while the actors still answer.
        running = await stack.enter_async_context(
            coordinate(settings, brains.values(), store=store, colocated=actors, hosting=hosting)
        )
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


@asynccontextmanager
async def hosted(
    settings: ColocatedSettings, reference: Reference, store: KeyValue | None, objects: Objects | None
) -> AsyncIterator[Hosted]:
    """The colocated regions of a brain of the library, loaded and following it while the block lasts."""
    if store is None or objects is None:
        raise InvalidInput(f"to follow {reference} the library's stores are needed; give --state and --objects")
    bytes_of = objects_of(objects, settings.library)

    def make(region: Region, identity: str) -> RegionActor:
        return followed_actor(settings.threads, bytes_of, region, identity)

    hosting = Hosted(make, lambda region: settings.colocate or region.placement == "colocated", settings.replicas)
    changes = wanted(records_of(store, settings.library), store, settings.namespace, reference)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(hosting.stop)
        await stack.enter_async_context(aclosing(changes))
        await hosting.begin(await anext(changes))
        await stack.enter_async_context(background(f"follow {reference}", hosting.follow(changes)))
        await stack.enter_async_context(background("let networks go", hosting.keep()))
        yield hosting


def main() -> int:
    settings = ColocatedSettings.read_or_exit(program="python -m encephalon.local.colocated")
    logs.configure(level=settings.log_level, service="colocated")
    return run_service(serve(settings))


if __name__ == "__main__":
    sys.exit(main())
