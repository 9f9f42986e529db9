"""From shares to reports: in a thread of its own, what is read ahead, and what is told of failures."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import torch

from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.core.errors import Cancelled, FailedPrecondition, InvalidInput, Unavailable
from encephalon.learning.samples import Batch
from encephalon.training.worker import shares as module
from encephalon.training.worker.computation import Outcome
from encephalon.training.worker.shares import Work
from tests.unit.training.worker.fakes import share_of
from tests.waiting import until


class FakeSamples:
    training = 100

    def __init__(self) -> None:
        self.expected: list[tuple[int, int, int]] = []
        self.failure: Exception | None = None

    def train(self, epoch: int, start: int, stop: int) -> Batch:
        if self.failure is not None:
            raise self.failure
        return Batch({}, torch.zeros(stop - start))

    def expect(self, *range: int) -> None:
        self.expected.append(range)  # type: ignore[arg-type]

    def evaluate(self, purpose: str, start: int, stop: int) -> Batch:
        return Batch({}, torch.zeros(stop - start))


class FakeComputation:
    def __init__(self) -> None:
        self.threads: set[str] = set()
        self.failure: Exception | None = None
        self.layouts: list[Any] = []
        self.dropped = 0

    def begin(self, layout: Any) -> None:
        self.layouts.append(layout)

    def train(self, share: pb.Share, batch: Batch) -> Outcome:
        self.threads.add(threading.current_thread().name)
        if self.failure is not None:
            raise self.failure
        return Outcome(len(batch), 1.5, {"class": 2}, 0.25, 7, 9)

    def evaluate(self, share: pb.Share, batch: Batch) -> Outcome:
        return Outcome(len(batch), 0.5)

    def drop(self) -> None:
        self.dropped += 1

    def close(self) -> None:
        """Nothing is open."""


@asynccontextmanager
async def working() -> AsyncIterator[tuple[Work, FakeComputation, FakeSamples]]:
    computation, samples = FakeComputation(), FakeSamples()
    work = Work(computation, samples, [], None, batch_size=40)  # type: ignore[arg-type]
    try:
        yield work, computation, samples
    finally:
        await work.close()


async def test_a_share_becomes_a_report() -> None:
    async with working() as (work, computation, _):
        await work.begin(pb.JoinResponse())
        assert len(computation.layouts) == 1
        report = await work.do(share_of(10, 20, epoch=3))
        assert report == pb.ReportRequest(
            samples=10, loss=1.5, correct={"class": 2}, compute_seconds=0.25, sent_bytes=7, received_bytes=9
        )
        judged = await work.do(share_of(0, 5, kind=pb.Share.KIND_EVALUATE, purpose="validation"))
        assert judged == pb.ReportRequest(samples=5, loss=0.5)
        assert computation.threads == {"compute_0"}


async def test_nobody_waits_for_a_share_to_be_dropped() -> None:
    async with working() as (work, computation, _):
        may = threading.Event()
        computation.drop = may.wait  # type: ignore[method-assign, assignment]
        work.drop()  # would not come back
        may.set()
        dropped = threading.Event()
        computation.drop = dropped.set  # type: ignore[method-assign]
        work.drop()
        await until(dropped.is_set)


async def test_the_same_place_of_the_next_batch_is_read_ahead() -> None:
    async with working() as (work, _, samples):
        for start, stop in ((10, 20), (50, 60), (90, 100)):
            await work.do(share_of(start, stop, epoch=3))
        assert samples.expected == [(3, 50, 60), (3, 90, 100), (4, 10, 20)]


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (InvalidInput("split 'train' has label -1"), "split 'train' has label -1"),
        (RuntimeError("shapes cannot\nbe multiplied"), "RuntimeError: shapes cannot be multiplied"),
    ],
)
async def test_what_cannot_be_done_is_told(failure: Exception, told: str) -> None:
    async with working() as (work, computation, _):
        computation.failure = failure
        assert await work.do(share_of()) == pb.ReportRequest(failure=told)


async def test_what_may_pass_is_raised_and_what_was_dropped_forgotten() -> None:
    async with working() as (work, computation, samples):
        for failure in (Unavailable("a shard is away"), FailedPrecondition("the generation is over")):
            computation.failure = failure
            with pytest.raises(type(failure)):
                await work.do(share_of())
        computation.failure = Cancelled("dropped")
        assert await work.do(share_of()) is None
        samples.failure = FailedPrecondition("the data set is closed")
        assert await work.do(share_of()) == pb.ReportRequest(failure="the data set is closed")


async def test_what_a_run_begins_with_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    async def written(objects: object, key: str, tensors: object) -> Any:
        return module.parameter_pb.Checkpoint(version=0, pieces=[{"key": key}])

    monkeypatch.setattr(module, "write_initial", written)
    async with working() as (work, _, _):
        report = await work.do(share_of(kind=pb.Share.KIND_INITIALISE, key="training/r/0"))
        assert report is not None
        assert report.initial.pieces[0].key == "training/r/0"
