"""A worker's process: what it needs is opened, it works until the run is over, and everything is closed again."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import torch

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as parameter_pb
from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.core.errors import Corrupt, NotFound, Retryable
from encephalon.core.host import host_identity
from encephalon.core.metrics import metrics_served
from encephalon.core.serving import serving, until_signal
from encephalon.core.tasks import spawn
from encephalon.core.version import installed_version
from encephalon.learning.brain import LearningBrain, load_brain
from encephalon.learning.client import Client
from encephalon.learning.parameters import ParameterClient
from encephalon.learning.samples import Samples, open_samples
from encephalon.library.library import Library
from encephalon.library.open import default_cache_dir
from encephalon.library.store.cache import Cache
from encephalon.state import KeyValue, Objects, open_key_value, open_objects
from encephalon.training.pipeline.pipeline import Pipeline
from encephalon.training.pipeline.places import following_regions
from encephalon.training.runs import RunSettings, keys_of
from encephalon.training.states import unpacked
from encephalon.training.worker.computation import Computation
from encephalon.training.worker.control import following
from encephalon.training.worker.local import Local
from encephalon.training.worker.settings import WorkerSettings
from encephalon.training.worker.shares import Work
from encephalon.training.worker.worker import Worker

__all__ = ["Stores", "serve", "stores_of", "working"]

LOG = logging.getLogger(__name__)
T = TypeVar("T")

RETRY_S: Final = 0.5
RESTING: Final = (pb.RunState.STATE_STOPPED, pb.RunState.STATE_FAILED)
"""Ends after which a run may be resumed."""


@dataclass(frozen=True)
class Stores:
    key_value: KeyValue
    objects: Objects
    cache: Cache


async def serve(settings: WorkerSettings) -> None:
    """Until the run is over, or SIGTERM came and the share that was being computed is done. Raises InvalidInput when
    the control node refuses this worker, NotFound when there is no such run, brain or data set."""
    async with AsyncExitStack() as stack:
        stores = await stack.enter_async_context(stores_of(settings))
        await stack.enter_async_context(metrics_served(settings.metrics_port))
        run = await _run_settings(stores.key_value, settings)
        worker = await stack.enter_async_context(working(settings, run, stores))
        health = serving([], addresses=[settings.listen], ready=lambda: worker.joined)
        await stack.enter_async_context(health)
        spawn("leave on a signal", _leave_on_signal(worker))
        if sentence := await worker.run():
            LOG.info("the run is over", extra={"reason": sentence})


@asynccontextmanager
async def stores_of(settings: WorkerSettings) -> AsyncIterator[Stores]:
    cache = Cache(settings.library_cache or default_cache_dir())
    async with open_key_value(settings.state) as key_value, open_objects(settings.objects) as objects:
        try:
            yield Stores(key_value, objects, cache)
        finally:
            cache.close()


async def _run_settings(store: KeyValue, settings: WorkerSettings) -> RunSettings:
    """Waits while the store is out of reach."""
    entry = await _patiently(lambda: store.get(keys_of(settings.namespace, settings.run)[0]))
    if entry is None:
        raise NotFound(f"there is no run '{settings.run}' in namespace '{settings.namespace}'", run=settings.run)
    return RunSettings.read(entry.value)


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Waits while a store is out of reach."""
    while True:
        try:
            return await call()
        except Retryable as error:
            LOG.warning("a store cannot be used yet", extra={"cause": error.message})
            await asyncio.sleep(RETRY_S)


@asynccontextmanager
async def working(settings: WorkerSettings, run: RunSettings, stores: Stores) -> AsyncIterator[Worker]:
    """A worker that is ready to run. Raises as `load_brain` and `open_samples` do."""
    library = Library(stores.key_value, stores.objects, namespace=run.library, cache=stores.cache)
    _prepare(run)
    async with AsyncExitStack() as stack:
        brain = await _patiently(lambda: load_brain(library, run.brain, run))
        samples = await _patiently(
            lambda: stack.enter_async_context(open_samples(library, run, brain.routing, brain.classes))
        )
        computation = await stack.enter_async_context(_computing(settings, run, brain, stores))
        work = Work(
            computation,
            samples,
            brain.learned(),
            stores.objects,
            batch_size=run.batch_size,
            prepare=lambda: _prepare(run),
        )
        stack.push_async_callback(work.close)
        control = await stack.enter_async_context(following(stores.key_value, settings.namespace, run.run))
        yield Worker(
            control,
            joining(settings, run, brain, samples),
            work,
            heartbeat_s=run.heartbeat_s,
            over=partial(over, stores.key_value, settings),
        )


def joining(settings: WorkerSettings, run: RunSettings, brain: LearningBrain, samples: Samples) -> pb.JoinRequest:
    return pb.JoinRequest(
        run=run.run,
        member=pb.Member(worker=settings.worker, incarnation=uuid.uuid4().hex),
        host=host_identity(),
        tensors=brain.tensors(),
        model_digest=brain.digest(samples.digest),
        code_version=installed_version(),
        training_samples=samples.training,
        evaluation_samples=samples.evaluation,
        most_samples=settings.most_samples,
        micro_batch=run.micro_batch if run.pipeline else 0,
    )


async def over(store: KeyValue, settings: WorkerSettings, joined: bool) -> str:
    """What the run's state says of its end, for who has missed the control node's last words; "" while it goes on."""
    try:
        entry = await store.get(keys_of(settings.namespace, settings.run)[1])
    except Retryable:
        return ""
    if entry is None:
        return ""
    try:
        state = unpacked(entry.value, settings.run)
    except Corrupt as error:
        LOG.warning("the run's state is of no use", extra={"cause": error.message})
        return ""
    ended = state.state == pb.RunState.STATE_SUCCEEDED or (joined and state.state in RESTING)
    return (state.sentence or "the run has ended") if ended else ""


@asynccontextmanager
async def _computing(
    settings: WorkerSettings, run: RunSettings, brain: LearningBrain, stores: Stores
) -> AsyncIterator[Computation]:
    """What the shares are computed with."""

    def client(layout: parameter_pb.Layout) -> Client:
        return ParameterClient(layout, wire=run.wire, top_k=run.top_k, share_memory=settings.share_memory)

    async with AsyncExitStack() as stack:
        computation: Computation
        if run.pipeline:
            regions = following_regions(stores.key_value, settings.namespace, run.run, settings.worker)
            computation = Pipeline(brain, run, await stack.enter_async_context(regions))
        else:
            computation = Local(brain, run, client, at_once=settings.at_once)
        try:
            yield computation
        finally:
            await asyncio.to_thread(computation.close)


def _prepare(run: RunSettings) -> None:
    """torch counts threads for each of the process' own threads."""
    torch.set_num_threads(run.threads)
    # As use_deterministic_algorithms, which would first import torch's compiler, some seconds long.
    torch.set_deterministic_debug_mode("warn")
    # Nothing here reads memory that was not written; filling it first would only cost time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


async def _leave_on_signal(worker: Worker) -> None:
    which = await until_signal()
    LOG.info("leaving when this share is done", extra={"signal": which.name})
    worker.leave()
