"""The life of a region: starting, ready (announced), draining, stopped."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from encephalon.core.contract import Contract
from encephalon.core.errors import FailedPrecondition, NotFound
from encephalon.core.inference import InferenceService, Instant, MappedMemory, Models, link_path, linked
from encephalon.core.metrics import metrics_served
from encephalon.core.serving import Limits, Server, serving, until_signal
from encephalon.core.tasks import background
from encephalon.core.version import installed_version
from encephalon.core.wire import InferRequest, InferResponse
from encephalon.library.areas import find_network
from encephalon.library.brains import Brain, Region, load_manifest
from encephalon.library.brains.releases import Wanted, records_of, wanted
from encephalon.library.records import Reference
from encephalon.library.store.below import objects_of
from encephalon.region.actor import RegionActor
from encephalon.region.announcing import announced_group, announced_region
from encephalon.region.following import FollowingRegion, regions_of
from encephalon.region.group import RegionGroup
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
    await (serve_followed(settings) if settings.follow else serve_manifest(settings))
    LOG.info("the region has stopped")


async def serve_manifest(settings: RegionSettings) -> None:
    manifest = manifest_of(settings)
    brain = load_manifest(manifest)
    region = find_region(brain, settings.region)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_key_value(settings.state)) if settings.state else None
        objects = await stack.enter_async_context(open_objects(settings.objects)) if settings.objects else None
        memory = mapped(settings, stack)
        actor = actor_of(settings, brain, region, objects)
        stack.push_async_callback(actor.stop)
        served = await stack.enter_async_context(doors(settings, actor, lambda: actor.version.inline, memory))
        await actor.start()
        settle_memory()
        async with announced_region(settings, store, brain.name, actor, served.server):
            await until_asked_to_leave(served)
        await drain(actor, served, settings.drain_s)


async def serve_followed(settings: RegionSettings) -> None:
    """The networks that the followed brain has for the region, side by side while coordinators change over."""
    reference = Reference.parse(settings.follow, "brain")
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_key_value(settings.state))
        objects = await stack.enter_async_context(open_objects(settings.objects))
        library = records_of(store, settings.library)
        memory = mapped(settings, stack)
        bytes_of = objects_of(objects, settings.library)
        group = RegionGroup(settings.region, partial(followed_actor, settings.threads, bytes_of))
        stack.push_async_callback(group.stop)
        model = FollowingRegion(group, str(reference))
        served = await stack.enter_async_context(doors(settings, model, lambda: group.inline, memory))
        changes = wanted(library, store, settings.namespace, reference)
        await stack.enter_async_context(aclosing(changes))
        LOG.info("the region waits until the library says what it is", extra={"brain": str(reference)})
        await begin(group, await anext(changes))
        settle_memory()
        await stack.enter_async_context(background(f"follow {reference}", follow(group, changes)))
        await stack.enter_async_context(background("let networks go", group.keep()))
        async with announced_group(settings, store, reference.name, group, served.server):
            await until_asked_to_leave(served)
        await drain(group, served, settings.drain_s)


async def begin(group: RegionGroup, first: Wanted) -> None:
    """Loads the first networks. NotFound when the brain has no such region, else as loading one."""
    target, others = regions_of(first, group.region)
    if target is None and not others:
        if first.target.brain is None:
            raise FailedPrecondition(first.target.problem)
        find_region(first.target.brain, group.region)
    group.want(target, others)
    await group.settled()


async def follow(group: RegionGroup, changes: AsyncGenerator[Wanted, None]) -> None:
    async for change in changes:
        LOG.info("the brain's versions have changed", extra={"versions": [each.version for each in change.releases]})
        group.want(*regions_of(change, group.region))


@dataclass(frozen=True, slots=True)
class Served:
    """The doors of a region: what it answers at, and what Prometheus reads."""

    service: InferenceService
    server: Server
    metrics_port: int | None


class Model(Models, Protocol):
    def infer_now(self, request: InferRequest, deadline: float | None = None) -> InferResponse | None: ...


def mapped(settings: RegionSettings, stack: AsyncExitStack) -> MappedMemory | None:
    """Outlives the actors, which compute in it."""
    memory = MappedMemory(settings.shared_memory) if settings.shared_memory else None
    if memory is not None:
        stack.callback(memory.close)
    return memory


@asynccontextmanager
async def doors(
    settings: RegionSettings, model: Model, inline: Callable[[], bool], memory: MappedMemory | None
) -> AsyncIterator[Served]:
    """Serves the model while the block lasts. `inline`: whether some answers need no waiting."""
    async with AsyncExitStack() as stack:
        service = InferenceService(
            model,
            shared_memory=memory,
            default_timeout_s=settings.default_timeout_s,
            max_message_bytes=settings.max_message_bytes,
            version=installed_version(),
        )
        server = await stack.enter_async_context(listening(settings, model, service))
        if settings.unix:
            await stack.enter_async_context(locally_linked(settings, model, inline, service))
        port = await stack.enter_async_context(metrics_served(settings.metrics_port))
        yield Served(service, server, port)


async def until_asked_to_leave(served: Served) -> None:
    LOG.info(
        "the region is ready", extra={"addresses": list(served.server.addresses), "metrics_port": served.metrics_port}
    )
    signal = await until_signal()
    LOG.info("the region is draining", extra={"signal": signal.name})


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
    weights = weights_of(manifest_of(settings), region)
    return RegionActor(
        region.name,
        Config(region.network, weights, region.arguments, trusted=True),
        contract_of(region),
        max_batch=region.max_batch,
        max_delay_s=region.max_delay_s,
        mailbox=region.mailbox,
        source=Source(objects, settings.weights),
        threads=settings.threads or max(1, (os.cpu_count() or 1) // len(brain.regions)),
    )


def followed_actor(threads: int | None, objects: Objects, region: Region, identity: str) -> RegionActor:
    """Of a brain in the library, whose weights are objects: it names no file of this machine."""
    return RegionActor(
        region.name,
        Config(region.network, region.weights, region.arguments, version=identity),
        contract_of(region),
        max_batch=region.max_batch,
        max_delay_s=region.max_delay_s,
        mailbox=region.mailbox,
        source=Source(objects),
        threads=threads or max(1, (os.cpu_count() or 1) // 2),
    )


def contract_of(region: Region) -> Contract:
    """What every network of the region must fulfil."""
    if region.contract is not None:
        return region.contract
    area, _, code = region.network.partition("/")
    return find_network(area, code)


def manifest_of(settings: RegionSettings) -> Path:
    if settings.brain is None:
        raise FailedPrecondition("the region has no manifest; give --brain")
    return settings.brain


def weights_of(manifest: Path, region: Region) -> str | None:
    """A file's name is relative to the manifest."""
    weights = region.weights
    if weights is None or weights.startswith("object:"):
        return weights
    return str(manifest.parent / weights)


def listening(settings: RegionSettings, model: Model, service: InferenceService) -> AbstractAsyncContextManager[Server]:
    addresses = [settings.listen, *([f"unix:{settings.unix}"] if settings.unix else [])]
    limits = Limits(max_message_bytes=settings.max_message_bytes + SLACK_BYTES, grace_s=FLUSH_S)
    return serving([service.handler()], addresses=addresses, limits=limits, ready=model.ready)


def locally_linked(
    settings: RegionSettings, model: Model, inline: Callable[[], bool], service: InferenceService
) -> AbstractAsyncContextManager[None]:
    instant = Instant(
        model.infer_now,
        lambda: model.ready() and inline(),
        settings.default_timeout_s,
        settings.max_message_bytes,
    )
    frame = settings.max_message_bytes + SLACK_BYTES
    return linked(service, link_path(f"unix:{settings.unix}"), frame, FLUSH_S, instant)


async def drain(model: RegionActor | RegionGroup, served: Served, seconds: float) -> None:
    """Nothing new, then every admitted request answered; whatever is left after `seconds` is given up."""
    served.server.set_serving(False)
    try:
        async with asyncio.timeout(seconds):
            await model.drain()
    except TimeoutError:
        LOG.warning("requests were given up, draining took too long", extra={"drain_s": seconds})
    served.service.drain()


def settle_memory() -> None:
    """What is loaded now stays: the collector need not look at it again, which saves a pause of 10 ms with torch."""
    gc.collect()
    gc.freeze()
