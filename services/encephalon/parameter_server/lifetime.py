"""The life of a shard: serving, announced, until it is asked to leave."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

import torch

from encephalon.api.discovery.v1.instance_pb2 import Instance
from encephalon.core.errors import FailedPrecondition
from encephalon.core.host import host_identity
from encephalon.core.metrics import metrics_served
from encephalon.core.serving import Limits, Server, host_port, serving, until_signal
from encephalon.discovery import announced
from encephalon.parameter_server.data import DATA_LIMITS, ParameterData
from encephalon.parameter_server.metrics import DATA_BYTES, HELD_BYTES, VERSION
from encephalon.parameter_server.service import ParameterServerService
from encephalon.parameter_server.settings import ShardSettings
from encephalon.parameter_server.shard import Shard
from encephalon.parameter_server.shared import SharedParameters
from encephalon.state import open_key_value, open_objects

__all__ = ["INSTANCES", "Running", "running", "serve"]

LOG = logging.getLogger(__name__)
INSTANCES: Final = "training:"
"""Before the run's name where discovery has a brain's, as `training.runs` says, which is a neighbour."""

GRACE_S: Final = 0.5
"""For answers on their way; whoever waits for gradients asks again, elsewhere."""


class Running(NamedTuple):
    shard: Shard
    server: Server
    """Of the control node's orders."""
    metrics_port: int | None


async def serve(settings: ShardSettings) -> None:
    """Until SIGTERM or SIGINT. Every error that a user can mend is one of `core.errors`."""
    async with running(settings) as shard:
        LOG.info("the shard is ready", extra={"addresses": list(shard.server.addresses)})
        signal = await until_signal()
        LOG.info("the shard is leaving", extra={"signal": signal.name})
    LOG.info("the shard has stopped")


@contextlib.asynccontextmanager
async def running(settings: ShardSettings) -> AsyncIterator[Running]:
    """A shard that others can find, while the block lasts."""
    clear(settings.folder)
    async with contextlib.AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_key_value(settings.state))
        objects = await stack.enter_async_context(open_objects(settings.objects))
        work = stack.enter_context(
            ThreadPoolExecutor(1, "shard", initializer=torch.set_num_threads, initargs=(settings.threads,))
        )
        work.submit(warm)
        shard = Shard(settings.run, settings.shard, objects, settings.folder, work, SharedParameters)
        stack.push_async_callback(shard.close)
        data = ParameterData(shard.current)
        show(shard, data)
        data_server = await stack.enter_async_context(
            serving([data.handler()], addresses=[settings.data_listen], limits=DATA_LIMITS)
        )
        stack.callback(data.close)
        service = ParameterServerService(shard, data, reachable(settings, data_server.addresses[0]))
        server = await stack.enter_async_context(
            serving([service.handler()], addresses=[settings.listen], limits=Limits(grace_s=GRACE_S))
        )
        port = await stack.enter_async_context(metrics_served(settings.metrics_port))
        await stack.enter_async_context(announced(store, settings.namespace, instance_of(settings, shard, server)))
        yield Running(shard, server, port)


def clear(folder: Path) -> None:
    """Makes the folder, and deletes what an earlier process has left. FailedPrecondition when it cannot be used."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in [*folder.glob("*.piece"), *folder.glob("*.piece.part")]:
            left.unlink(missing_ok=True)
    except OSError as error:
        raise FailedPrecondition(
            f"the folder {folder} cannot be used: {error.strerror}; give another --folder", path=folder
        ) from error


def instance_of(settings: ShardSettings, shard: Shard, server: Server) -> Instance:
    return Instance(
        brain=INSTANCES + settings.run,
        region=f"shard-{settings.shard}",
        id=f"shard-{settings.shard}-{shard.incarnation}",
        address=reachable(settings, server.addresses[0]),
        host=host_identity(),
        state=Instance.STATE_READY,
    )


def reachable(settings: ShardSettings, address: str) -> str:
    """The address for others."""
    return f"{settings.advertise}:{host_port(address)[1]}" if settings.advertise else address


def warm() -> None:
    """The first optimiser of a process takes torch more than a second; it need not be while a run waits."""
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])


def show(shard: Shard, data: ParameterData) -> None:
    DATA_BYTES.show("received", read=lambda: data.received_bytes)
    DATA_BYTES.show("sent", read=lambda: data.sent_bytes)
    HELD_BYTES.show("held", read=lambda: shard.store.held_bytes if shard.store else 0)
    HELD_BYTES.show("buffered", read=lambda: shard.store.buffered_bytes if shard.store else 0)
    VERSION.show(read=lambda: shard.store.version if shard.store else 0)
