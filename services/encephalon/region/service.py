"""The life of a region: starting, ready (announced), draining, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
from contextlib import AsyncExitStack
from pathlib import Path

from encephalon.core.errors import FailedPrecondition, NotFound
from encephalon.core.inference import InferenceService, Instant, MappedMemory, link_path, linked
from encephalon.core.metrics import metrics_served
from encephalon.core.serving import Limits, Server, serving, until_signal
from encephalon.core.version import installed_version
from encephalon.library.areas import find_network
from encephalon.library.brains import Brain, Region, load_manifest
from encephalon.region.actor import RegionActor
from encephalon.region.announcing import announced_region
from encephalon.region.settings import RegionSettings
from encephalon.region.source import Config, Source
from encephalon.state import Objects, open_key_value, open_objects

__all__ = ["actor_of", "serve"]

LOG = logging.getLogger(__name__)

SLACK_BYTES = 1 << 16
"""By which the transport takes more than the service: what is too large is then refused by the service, in a sentence.
"""
FLUSH_S = 1.0
"""For the last answers to leave after the last message was computed."""


async def serve(settings: RegionSettings) -> None:
    """Serves until SIGTERM or SIGINT. Every error that a user can mend is one of `core.errors`."""
    brain = load_manifest(settings.brain)
    region = find_region(brain, settings.region)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_key_value(settings.state)) if settings.state else None
        objects = await stack.enter_async_context(open_objects(settings.objects)) if settings.objects else None
        memory = MappedMemory(settings.shared_memory) if settings.shared_memory else None
        if memory is not None:
            stack.callback(memory.close)
        actor = actor_of(settings, brain, region, objects)
        service = InferenceService(
            actor,
            shared_memory=memory,
            default_timeout_s=settings.default_timeout_s,
            max_message_bytes=settings.max_message_bytes,
            version=installed_version(),
        )
        stack.push_async_callback(actor.stop)
        server = await stack.enter_async_context(served(settings, actor, service))
        if settings.unix:
            await stack.enter_async_context(locally_linked(settings, actor, service))
        port = await stack.enter_async_context(metrics_served(settings.metrics_port))
        await actor.start()
        settle_memory()
        async with announced_region(settings, store, brain, actor, server):
            LOG.info("the region is ready", extra={"addresses": list(server.addresses), "metrics_port": port})
            signal = await until_signal()
            LOG.info("the region is draining", extra={"signal": signal.name})
        await drain(actor, service, server, settings.drain_s)
    LOG.info("the region has stopped")


def find_region(brain: Brain, name: str) -> Region:
    found = next((region for region in brain.regions if region.name == name), None)
    if found is None:
        there = ", ".join(region.name for region in brain.regions)
        raise NotFound(f"brain '{brain.name}' has no region '{name}'; it has {there}", region=name)
    if found.address:
        raise FailedPrecondition(
            f"region '{name}' is served at {found.address}; there is nothing to start", region=name
        )
    return found


def actor_of(settings: RegionSettings, brain: Brain, region: Region, objects: Objects | None) -> RegionActor:
    area, _, code = region.network.partition("/")
    return RegionActor(
        region.name,
        Config(region.network, weights_of(settings.brain, region), region.arguments, trusted=True),
        region.contract or find_network(area, code),
        max_batch=region.max_batch,
        max_delay_s=region.max_delay_s,
        mailbox=region.mailbox,
        source=Source(objects, settings.weights),
        threads=settings.threads or max(1, (os.cpu_count() or 1) // len(brain.regions)),
    )


def weights_of(manifest: Path, region: Region) -> str | None:
    """A file's name is relative to the manifest."""
    weights = region.weights
    if weights is None or weights.startswith("object:"):
        return weights
    return str(manifest.parent / weights)


def served(
    settings: RegionSettings, actor: RegionActor, service: InferenceService
) -> contextlib.AbstractAsyncContextManager[Server]:
    addresses = [settings.listen, *([f"unix:{settings.unix}"] if settings.unix else [])]
    limits = Limits(max_message_bytes=settings.max_message_bytes + SLACK_BYTES, grace_s=FLUSH_S)
    return serving([service.handler()], addresses=addresses, limits=limits, ready=actor.ready)


def locally_linked(
    settings: RegionSettings, actor: RegionActor, service: InferenceService
) -> contextlib.AbstractAsyncContextManager[None]:
    instant = Instant(
        actor.infer_now,
        lambda: actor.ready() and actor.version.inline,
        settings.default_timeout_s,
        settings.max_message_bytes,
    )
    frame = settings.max_message_bytes + SLACK_BYTES
    return linked(service, link_path(f"unix:{settings.unix}"), frame, FLUSH_S, instant)


async def drain(actor: RegionActor, service: InferenceService, server: Server, seconds: float) -> None:
    """Nothing new, then every admitted request answered; whatever is left after `seconds` is given up."""
    server.set_serving(False)
    try:
        async with asyncio.timeout(seconds):
            await actor.drain()
    except TimeoutError:
        LOG.warning("requests were given up, draining took too long", extra={"drain_s": seconds})
    service.drain()


def settle_memory() -> None:
    """What is loaded now stays: the collector need not look at it again, which saves a pause of 10 ms with torch."""
    gc.collect()
    gc.freeze()
