"""The life of a region that learns: serving, announced, until it is asked to leave."""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import AsyncIterator
from typing import Final

import torch

from encephalon.api.discovery.v1.instance_pb2 import Instance
from encephalon.core.host import host_identity
from encephalon.core.metrics import metrics_served
from encephalon.core.serving import Limits, Server, host_port, serving, until_signal
from encephalon.discovery import announced
from encephalon.region.learning.actor import LearningActor
from encephalon.region.learning.loading import Loading
from encephalon.region.learning.service import RegionLearningService
from encephalon.region.learning.settings import LearningRegionSettings
from encephalon.state import open_key_value, open_objects

__all__ = ["INSTANCES", "running", "serve"]

LOG = logging.getLogger(__name__)
INSTANCES: Final = "training:"
"""Before the run's name where discovery has a brain's, as `training.runs` says, which is a neighbour."""

GRACE_S: Final = 0.5
"""For a share that is being computed: its worker asks for it again, and this process has little time to go."""


async def serve(settings: LearningRegionSettings) -> None:
    """Until SIGTERM or SIGINT. Every error that a user can mend is one of `core.errors`."""
    async with running(settings) as server:
        LOG.info("the region is ready to learn", extra={"addresses": list(server.addresses)})
        signal = await until_signal()
        LOG.info("the region is leaving", extra={"signal": signal.name})
    LOG.info("the region has stopped")


@contextlib.asynccontextmanager
async def running(settings: LearningRegionSettings) -> AsyncIterator[Server]:
    """A region that its worker can find, while the block lasts."""
    async with contextlib.AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_key_value(settings.state))
        objects = await stack.enter_async_context(open_objects(settings.objects))
        actor = LearningActor(
            Loading(settings.region, objects, share_memory=settings.share_memory),
            prepare_thread=lambda: prepare_torch(settings.threads),
        )
        stack.push_async_callback(actor.close)
        await actor.start()
        limits = Limits(max_message_bytes=settings.max_message_bytes, grace_s=GRACE_S)
        service = RegionLearningService(actor)
        server = await stack.enter_async_context(
            serving([service.handler()], addresses=[settings.listen], limits=limits)
        )
        await stack.enter_async_context(metrics_served(settings.metrics_port))
        await stack.enter_async_context(announced(store, settings.namespace, instance_of(settings, server)))
        yield server


def prepare_torch(threads: int | None) -> None:
    """In the thread that computes, as a worker does it: the same share gives the same bits."""
    if threads is not None:
        torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("warn")
    # Nothing here reads memory that was not written; filling it first would only cost time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def instance_of(settings: LearningRegionSettings, server: Server) -> Instance:
    address = server.addresses[0]
    return Instance(
        brain=INSTANCES + settings.run,
        region=f"{settings.worker}.{settings.region}",
        id=uuid.uuid4().hex,
        address=f"{settings.advertise}:{host_port(address)[1]}" if settings.advertise else address,
        host=host_identity(),
        state=Instance.STATE_READY,
    )
