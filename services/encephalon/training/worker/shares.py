"""From a share to its report."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, ParamSpec, TypeVar

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as parameter_pb
from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.core.errors import (
    Cancelled,
    DeadlineExceeded,
    EncephalonError,
    FailedPrecondition,
    Internal,
    Retryable,
)
from encephalon.learning.checkpoint import write_initial
from encephalon.learning.region import Learned
from encephalon.learning.samples import Batch, Samples
from encephalon.state import Objects
from encephalon.training.worker import metrics
from encephalon.training.worker.computation import Computation, Outcome

__all__ = ["Work"]

LOG = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

AGAIN: Final = (Retryable, DeadlineExceeded, FailedPrecondition)
"""A shard or a store is away, or the share is out of date: the control node knows what is next."""

KINDS: Final = {
    pb.Share.KIND_INITIALISE: "initialise",
    pb.Share.KIND_TRAIN: "train",
    pb.Share.KIND_EVALUATE: "evaluate",
}


class Work:
    """Computes in one thread of its own, so that nothing else in the process ever waits for it."""

    def __init__(
        self,
        computation: Computation,
        samples: Samples,
        learned: Sequence[Learned],
        objects: Objects,
        *,
        batch_size: int,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        """learned: what a run begins with. prepare: called in the thread once, before anything is computed."""
        self._computation, self._samples, self._learned, self._objects = computation, samples, learned, objects
        self._batch_size = batch_size
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="compute", initializer=prepare)

    async def begin(self, response: pb.JoinResponse) -> None:
        await self._in_thread(self._computation.begin, response.layout)

    async def do(self, share: pb.Share) -> pb.ReportRequest | None:
        """None for a share that was dropped. Raises `AGAIN`; what cannot be done is told in the report."""
        kind = KINDS.get(share.kind, "unknown")
        try:
            report = await self._done(share)
        except Cancelled:
            metrics.SHARES.labels(kind, "dropped").value += 1
            return None
        except AGAIN:
            metrics.SHARES.labels(kind, "again").value += 1
            raise
        except Exception as error:
            LOG.exception("a share cannot be done")
            metrics.SHARES.labels(kind, "failed").value += 1
            return pb.ReportRequest(failure=_sentence(error))
        metrics.SHARES.labels(kind, "done").value += 1
        metrics.SAMPLES.labels(kind).value += report.samples
        return report

    def drop(self) -> None:
        # What is on its way may take a moment to stop, and heartbeats must not wait for it.
        asyncio.get_running_loop().run_in_executor(None, self._computation.drop)

    async def close(self) -> None:
        """Waits for what is being computed."""
        await asyncio.to_thread(self._thread.shutdown)

    async def _done(self, share: pb.Share) -> pb.ReportRequest:
        if share.kind == pb.Share.KIND_INITIALISE:
            return pb.ReportRequest(initial=await self._initial(share.key))
        outcome = await self._in_thread(self._computed, share)
        metrics.COMPUTE_SECONDS.labels().observe(outcome.compute_seconds)
        metrics.BYTES.labels("sent").value += outcome.sent_bytes
        metrics.BYTES.labels("received").value += outcome.received_bytes
        return pb.ReportRequest(
            samples=outcome.samples,
            loss=outcome.loss,
            correct=outcome.correct,
            compute_seconds=outcome.compute_seconds,
            sent_bytes=outcome.sent_bytes,
            received_bytes=outcome.received_bytes,
        )

    async def _initial(self, key: str) -> parameter_pb.Checkpoint:
        return await write_initial(
            self._objects, key, [(each.message(), each.tensor.detach()) for each in self._learned]
        )

    def _computed(self, share: pb.Share) -> Outcome:
        """In the thread."""
        if share.kind == pb.Share.KIND_TRAIN:
            batch = _read(self._samples.train, share.epoch, share.start, share.stop)
            self._expect(share)
            return self._computation.train(share, batch)
        return self._computation.evaluate(share, _read(self._samples.evaluate, share.purpose, share.start, share.stop))

    async def _in_thread(self, call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(call, *arguments, **named))

    def _expect(self, share: pb.Share) -> None:
        """Probably the same place of the next batch comes next."""
        rows, start = share.stop - share.start, share.start + self._batch_size
        if start < self._samples.training:
            self._samples.expect(share.epoch, start, start + rows)
        else:
            first = share.start % self._batch_size
            self._samples.expect(share.epoch + 1, first, first + rows)


def _read(read: Callable[P, Batch], *arguments: P.args, **named: P.kwargs) -> Batch:
    """What fails for good here is no fault of the share's."""
    try:
        return read(*arguments, **named)
    except FailedPrecondition as error:
        raise Internal(error.message, **error.details) from error


def _sentence(error: Exception) -> str:
    if isinstance(error, EncephalonError):
        return error.message
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
