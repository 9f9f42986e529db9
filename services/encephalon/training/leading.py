"""A control node as a block: it serves, is announced, and leads its run to an end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Final, TypeVar

from encephalon.api.discovery.v1.instance_pb2 import Instance
from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.core.errors import EncephalonError, FailedPrecondition, NotFound, Retryable
from encephalon.core.host import host_identity
from encephalon.core.serving import Limits, Server, serving, until_signal
from encephalon.core.tasks import background, spawn
from encephalon.discovery import announced
from encephalon.state import EventKind, KeyValue, Objects
from encephalon.training.controller.calls import found_shards
from encephalon.training.controller.changes import Changes
from encephalon.training.controller.checkpoints import Checkpoints, folder_of
from encephalon.training.controller.desk import Desk
from encephalon.training.controller.engine import Engine, Finish
from encephalon.training.controller.figures import show
from encephalon.training.controller.group import Group
from encephalon.training.controller.record import Record
from encephalon.training.controller.shards import Transport
from encephalon.training.runs import INSTANCES, RunSettings, keys_of
from encephalon.training.service import TrainingService
from encephalon.training.settings import ControlSettings

__all__ = ["assembled", "lead"]

LOG = logging.getLogger(__name__)
T = TypeVar("T")
AGAIN_S: Final = 0.5
LIMITS: Final = Limits(max_message_bytes=64 << 20, grace_s=1.0)
RESTING: Final = (pb.RunState.STATE_STOPPED, pb.RunState.STATE_FAILED)


async def lead(settings: ControlSettings, store: KeyValue, objects: Objects, finish: Finish) -> None:
    """To the end of the run. NotFound when there is no such run; FailedPrecondition, with the cause, when it failed."""
    changes = Changes()
    run = await _settings(settings, store)
    record = Record(store, keys_of(settings.namespace, settings.run)[1], changes)
    await _patiently(record.read)
    if record.state.state == pb.RunState.STATE_SUCCEEDED:
        LOG.info("the run has succeeded already")
        return
    async with AsyncExitStack() as stack:
        calls = await stack.enter_async_context(found_shards(store, settings.namespace, settings.run, changes))
        engine = assembled(settings, run, record, changes, calls, objects, finish)
        show(engine)
        await stack.enter_async_context(_wishes(settings, store, engine, record.state.state in RESTING))
        server = await stack.enter_async_context(
            serving([TrainingService(engine).handler()], addresses=[settings.listen], limits=LIMITS)
        )
        await stack.enter_async_context(announced(store, settings.namespace, _instance(settings, server)))
        LOG.info("leads the run", extra={"addresses": ", ".join(server.addresses)})
        outcome = await engine.run()
        # Workers and watchers ask at least every two seconds, and shall hear how it ended.
        await asyncio.sleep(settings.grace_s)
    if outcome == pb.RunState.STATE_FAILED:
        raise FailedPrecondition(f"the run '{settings.run}' has failed: {record.state.sentence}")


def assembled(
    settings: ControlSettings,
    run: RunSettings,
    record: Record,
    changes: Changes,
    transport: Transport,
    objects: Objects,
    finish: Finish,
) -> Engine:
    """The engine of a run and all that it leads."""
    record.state.run = settings.run
    clock = asyncio.get_running_loop().time
    folder = folder_of(settings.namespace, settings.run)
    group = Group(transport, settings.run, settings.shards or run.shards, run.shard_timeout_s, changes)
    engine = Engine(
        run,
        desk=Desk(settings.run, run.death_s),
        group=group,
        record=record,
        checkpoints=Checkpoints(objects, record, folder, run.checkpoint_steps, clock),
        objects=objects,
        changes=changes,
        finish=finish,
        workers=settings.workers,
    )
    group.stopping = lambda: engine.stop
    return engine


async def _settings(settings: ControlSettings, store: KeyValue) -> RunSettings:
    entry = await _patiently(lambda: store.get(keys_of(settings.namespace, settings.run)[0]))
    if entry is None:
        raise NotFound(f"there is no run '{settings.run}' in the namespace '{settings.namespace}'", run=settings.run)
    return RunSettings.read(entry.value)


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Waits while the store is out of reach."""
    told = False
    while True:
        try:
            return await call()
        except Retryable as error:
            if not told:
                LOG.warning("the store cannot be used yet", extra={"cause": error.message})
            told = True
            await asyncio.sleep(AGAIN_S)


def _instance(settings: ControlSettings, server: Server) -> Instance:
    return Instance(
        brain=INSTANCES + settings.run,
        region="controller",
        id=f"controller-{uuid.uuid4().hex}",
        address=settings.advertise or server.addresses[0],
        host=host_identity(),
        state=Instance.STATE_READY,
    )


@contextlib.asynccontextmanager
async def _wishes(settings: ControlSettings, store: KeyValue, engine: Engine, resumed: bool) -> AsyncIterator[None]:
    """Stops the run at a signal, and when the key says so. A wish that an earlier life has fulfilled is forgotten."""
    key = keys_of(settings.namespace, settings.run)[2]
    if resumed:
        await _patiently(lambda: store.delete(key))

    async def follow() -> None:
        async with contextlib.aclosing(store.watch(key)) as events:
            async for event in events:
                if event.kind is EventKind.PUT and event.key == key:
                    engine.request_stop()
        await asyncio.Event().wait()

    signals = spawn("signals", _until_signal(engine))
    try:
        async with background("wish to stop", follow()):
            yield
    finally:
        signals.cancel()
        await asyncio.wait([signals])
        if engine.record.state.state == pb.RunState.STATE_STOPPED:
            with contextlib.suppress(EncephalonError):
                await store.delete(key)


async def _until_signal(engine: Engine) -> None:
    which: signal.Signals = await until_signal()
    LOG.info("ends the run with a checkpoint", extra={"signal": which.name})
    engine.request_stop()
