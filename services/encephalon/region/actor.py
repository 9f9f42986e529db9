"""The actor: one mailbox, one worker, one network at a time, which changes between two batches."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Self

from encephalon.core import logs
from encephalon.core.actor import Batch, Mailbox
from encephalon.core.contract import Contract
from encephalon.core.errors import (
    AlreadyExists,
    EncephalonError,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    Unavailable,
)
from encephalon.core.inference import LoadParameter, ModelDescription, ModelIndexEntry, ModelStatistics
from encephalon.core.wire import InferRequest, InferResponse
from encephalon.region.batching import shapes_of, unify_shapes
from encephalon.region.computing import Answer, Message, compute_batch, compute_now
from encephalon.region.figures import show_mailbox
from encephalon.region.loading import load_version
from encephalon.region.source import Config, Source
from encephalon.region.version import Version
from encephalon.region.versions import Versions
from encephalon.region.worker import Worker

__all__ = ["RegionActor"]

LOG = logging.getLogger(__name__)

USUAL_PRIORITY = 100
"""Of a request that names none; the protocol's priorities start at 1, which goes first."""


class RegionActor:
    """Implements `core.inference.Models` for one model, whose name is the region's.

    A block: entering loads and warms up the first version; leaving stops whatever `drain` has left. `contract` is what
    every version must fulfil. `infer` is also the door for callers in the same process: tensors pass by reference.
    """

    def __init__(
        self,
        region: str,
        config: Config,
        contract: Contract,
        *,
        max_batch: int = 32,
        max_delay_s: float = 0.002,
        mailbox: int = 256,
        source: Source | None = None,
        threads: int | None = None,
    ) -> None:
        self.region = region
        self._config = config
        self._contract = contract
        self._source = source or Source()
        self._max_batch = max_batch
        self._max_delay_s = max_delay_s
        self._threads = threads
        self._versions = Versions(region)
        self._changing = asyncio.Lock()
        self._leaving = False
        self._started = 0.0
        self._mailbox: Mailbox[Message, Answer] = Mailbox(
            self._compute, capacity=mailbox, max_batch=max_batch, max_delay=max_delay_s, unify=unify
        )
        self._worker = Worker(f"region-{region}")

    async def start(self) -> None:
        """Loads the first version and warms it up. Raises what hinders."""
        await self._change(self._config)
        self._started = time.time()
        show_mailbox(self.region, lambda: len(self._mailbox))

    async def stop(self) -> None:
        """Fails what `drain` has left with `Unavailable`. Stopping twice is harmless."""
        self._leaving = True
        await self._mailbox.abort()
        self._worker.stop()
        self._versions.stop()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def drain(self) -> None:
        """Refuses new requests with `Unavailable` and returns when every admitted one is answered."""
        self._leaving = True
        await self._mailbox.drain()

    @property
    def load_share(self) -> float:
        """Share of the mailbox in use, 0 to 1."""
        return self._mailbox.load

    @property
    def capacity(self) -> int:
        return self._mailbox.capacity

    @property
    def waiting(self) -> int:
        """Messages in the mailbox."""
        return len(self._mailbox)

    @property
    def idle_s(self) -> float:
        """Seconds since the last answer, or since the start."""
        last = self.version.statistics.last_inference_ms / 1000
        return time.time() - max(last, self._started)

    @property
    def version(self) -> Version:
        """The one in service. Unavailable when there is none."""
        return self._versions.find()

    # What the protocol asks

    def server_name(self) -> str:
        return "encephalon-region"

    def ready(self) -> bool:
        return self._versions.current is not None and not self._leaving

    def model_ready(self, name: str, version: str = "") -> bool:
        self._check_name(name)
        current = self._versions.current
        if version and (current is None or current.name != version):
            raise NotFound(f"region '{self.region}' has no version '{version[:64]}'", region=self.region)
        return self.ready()

    def describe(self, name: str, version: str = "") -> ModelDescription:
        self._check_name(name)
        current = self._versions.find(version)
        return ModelDescription(
            name=self.region,
            versions=(current.name,),
            platform=f"encephalon_{current.config.area}",
            contract=current.contract,
            max_batch=self._max_batch,
            max_delay_s=self._max_delay_s,
            parameters={"network": current.config.network},
        )

    def statistics(self, name: str = "", version: str = "") -> Sequence[ModelStatistics]:
        if name:
            self._check_name(name)
        return [self._versions.find(version).statistics]

    def index(self) -> Sequence[ModelIndexEntry]:
        return self._versions.index()

    async def infer(self, request: InferRequest, deadline: float | None = None) -> InferResponse:
        logs.request_id.set(request.id)
        answer = self.infer_now(request, deadline)
        if answer is not None:
            return answer
        version = self._asked(request)
        began = time.perf_counter_ns()
        try:
            rows, wanted = self._checked(request, version)
            inputs = {tensor.name: tensor for tensor in request.inputs}
            computed = await self._ask(Message(version, inputs, rows, wanted), priority_of(request), deadline)
        except BaseException as error:
            self._count_failure(version, error, time.perf_counter_ns() - began)
            raise
        return self._answered(request, version, computed, began)

    def infer_now(self, request: InferRequest, deadline: float | None = None) -> InferResponse | None:
        """As `infer`, but without waiting: None when the network is not so cheap that it is computed on the spot."""
        version = self._asked(request)
        if not version.inline:
            return None
        began = time.perf_counter_ns()
        try:
            rows, wanted = self._checked(request, version)
            priority_of(request)
            computed = compute_now(self.region, version, request.inputs, rows, wanted)
        except BaseException as error:
            self._count_failure(version, error, time.perf_counter_ns() - began)
            raise
        return self._answered(request, version, computed, began)

    def _asked(self, request: InferRequest) -> Version:
        """The version that is asked. NotFound or Unavailable when there is none."""
        self._check_name(request.model_name)
        return self._version(request.model_version)

    def _version(self, name: str) -> Version:
        if self._leaving:
            raise Unavailable(f"region '{self.region}' is leaving; ask another replica", region=self.region)
        return self._versions.find(name)

    def _checked(self, request: InferRequest, version: Version) -> tuple[int, set[str] | None]:
        """The rows that came, and the outputs that are wanted (None: all). InvalidInput for what cannot be taken."""
        rows = version.contract.check_inputs(request.inputs)
        if rows > self._max_batch:
            raise InvalidInput(
                f"the request has {rows} rows and region '{self.region}' takes at most {self._max_batch}; send fewer",
                got=rows,
                expected=self._max_batch,
            )
        if not request.outputs:
            return rows, None
        wanted = {output.name for output in request.outputs}
        if unknown := wanted - {spec.name for spec in version.contract.outputs}:
            there = ", ".join(spec.name for spec in version.contract.outputs)
            raise InvalidInput(f"unknown output '{min(unknown)[:100]}'; there are {there}", tensor=min(unknown)[:100])
        return rows, wanted

    async def _ask(self, message: Message, priority: int, deadline: float | None) -> Answer:
        return await self._mailbox.ask(
            message,
            rows=message.rows,
            key=(message.version, shapes_of(message.version.contract, message.inputs)),
            priority=priority,
            deadline=deadline,
        )

    def _answered(self, request: InferRequest, version: Version, answer: Answer, began: int) -> InferResponse:
        self._count(version, answer, time.perf_counter_ns() - began)
        return InferResponse(
            self.region,
            version.name,
            request.id,
            {"queue_ms": answer.queue_s * 1e3, "compute_ms": answer.compute_ns / 1e6, "batch": answer.batch_rows},
            answer.outputs,
        )

    def _count_failure(self, version: Version, error: BaseException, ns: int) -> None:
        version.figures.failed(error.status.name if isinstance(error, EncephalonError) else "CANCELLED")
        version.statistics.fail.add(ns)

    def _count(self, version: Version, answer: Answer, ns: int) -> None:
        statistics, figures = version.statistics, version.figures
        statistics.last_inference_ms = time.time_ns() // 1_000_000
        statistics.success.add(ns)
        statistics.queue.add(round(answer.queue_s * 1e9))
        figures.queue.observe(answer.queue_s)
        figures.ok.value += 1

    async def _compute(self, batch: Batch[Message, Answer]) -> Sequence[Answer | BaseException]:
        version = batch.envelopes[0].message.version
        if version.cancelled is not None:
            version.cancelled.clear()
            batch.watch(version.cancelled)
        return await self._worker.run(self._in_worker, batch)

    def _in_worker(self, batch: Batch[Message, Answer]) -> Sequence[Answer | BaseException]:
        return compute_batch(self.region, batch.messages, batch.queued, batch.abandoned)

    # Changing the network

    async def load(self, name: str, parameters: Mapping[str, LoadParameter]) -> None:
        """Triton's parameters: `config` (JSON with network, weights, version, arguments) and
        `file:<version>/model.safetensors` or `.onnx` (bytes). Without any, what is in service stays, or what was
        unloaded returns.

        On failure the version in service is kept, and the error says both.
        """
        self._check_name(name)
        config = self._config.changed(parameters) if parameters else self._config
        async with self._changing:
            current = self._versions.current
            if current is not None and (not parameters or same(config, current)):
                return
            if current is not None and config.version == current.name:
                raise AlreadyExists(
                    f"version {current.name} of region '{self.region}' is in service with another network or weights; "
                    "give the new one another version",
                    version=current.name,
                )
            await self._change(config)

    async def unload(self, name: str, parameters: Mapping[str, LoadParameter]) -> None:
        """Refuses new requests, and returns when those that were admitted are answered."""
        self._check_name(name)
        async with self._changing:
            old = self._versions.find()
            self._versions.unload()
            await self._mailbox.settled()
            old.figures.forget()
            LOG.info("the network was unloaded", extra={"version": old.name})

    async def _change(self, config: Config) -> None:
        name = config.version or self._versions.next_name()
        old = self._versions.current
        self._versions.begin(name)
        try:
            new = await load_version(
                self.region, name, config, self._source, self._contract, self._max_batch, self._threads
            )
        except BaseException as error:
            problem = self._not_loaded(name, config, old, error)
            self._versions.fail(name, problem.message)
            LOG.warning("a network was not loaded", extra={"version": name, "reason": problem.message})
            if isinstance(error, Exception):
                raise problem from error
            raise
        # Messages that were admitted before belong to the old version and those after to the new one, so no batch
        # has both; the one that is computed now ends first, as one worker does all.
        self._versions.serve(new)
        self._mailbox.cost = new.cost
        self._config = dataclasses.replace(config, version=name)
        LOG.info("a network is in service", extra={"network": config.network, "version": name})
        if old is not None:
            old.figures.forget()

    def _not_loaded(self, name: str, config: Config, old: Version | None, error: BaseException) -> EncephalonError:
        kept = f"; version {old.name} stays in service" if old is not None else ""
        cause = error.message if isinstance(error, EncephalonError) else f"{type(error).__name__}: {error}"
        kind = type(error) if isinstance(error, EncephalonError) else FailedPrecondition
        details = error.details if isinstance(error, EncephalonError) else {}
        sentence = f"version {name} ({config.network}) of region '{self.region}' was not loaded: {cause}{kept}"
        return kind(sentence, **{**details, "region": self.region})

    def _check_name(self, name: str) -> None:
        if name != self.region:
            raise NotFound(f"there is no model '{name[:100]}' here; this is region '{self.region}'", model=name[:100])


def unify(one: object, other: object) -> object | None:
    """Batch keys are (version, shapes)."""
    if not isinstance(one, tuple) or not isinstance(other, tuple) or one[0] is not other[0]:
        return None
    shapes = unify_shapes(one[1], other[1])
    return None if shapes is None else (one[0], shapes)


def priority_of(request: InferRequest) -> int:
    if not request.parameters:
        return USUAL_PRIORITY
    value = request.parameters.get("priority", 0)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidInput(f"parameter 'priority' is {value!r}, expected a whole number from 0", parameter="priority")
    return value or USUAL_PRIORITY


def same(config: Config, version: Version) -> bool:
    """The very thing that is in service was asked for again; repeating a load is harmless."""
    known = version.config
    asked = (config.network, config.weights, dict(config.arguments))
    return asked == (known.network, known.weights, dict(known.arguments)) and config.version in ("", version.name)
