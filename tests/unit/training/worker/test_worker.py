"""The life of a worker against a control node that comes, goes, and changes its mind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.core.errors import DeadlineExceeded, FailedPrecondition, InvalidInput, Unavailable
from encephalon.training.worker import worker as module
from encephalon.training.worker.worker import Worker
from tests.unit.training.worker.fakes import FakeControl, share_of
from tests.waiting import until

MEMBER = pb.Member(worker="worker-0", incarnation="i")
JOINING = pb.JoinRequest(run="r", member=MEMBER)
OVER = pb.NextResponse(finished="5 epochs are done")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN_S", 0.01)


class FakeShares:
    def __init__(self) -> None:
        self.begun = 0
        self.done: list[pb.Share] = []
        self.drops = 0
        self.result: Callable[[pb.Share], Any] = lambda share: pb.ReportRequest(samples=share.stop - share.start)

    async def begin(self, response: pb.JoinResponse) -> None:
        self.begun += 1

    async def do(self, share: pb.Share) -> pb.ReportRequest | None:
        self.done.append(share)
        found = self.result(share)
        if isinstance(found, Exception):
            raise found
        return await found if asyncio.iscoroutine(found) else found

    def drop(self) -> None:
        self.drops += 1


def made(control: FakeControl, heartbeat_s: float = 0.01) -> tuple[Worker, FakeShares]:
    shares = FakeShares()
    return Worker(control, JOINING, shares, heartbeat_s=heartbeat_s), shares


def given(*updates: int) -> list[pb.NextResponse]:
    shards = pb.Shards(generation=1, data_addresses=["h:1"])
    return [pb.NextResponse(share=share_of(update=update, shards=shards)) for update in updates]


async def test_shares_are_done_and_reported_until_the_run_is_over() -> None:
    control = FakeControl()
    control.shares = [*given(1), pb.NextResponse(wait=True), *given(2), OVER]
    worker, shares = made(control)
    assert await worker.run() == "5 epochs are done"
    assert [share.update for share in shares.done] == [1, 2]
    first, _ = control.of("Report")
    assert (first.run, first.member, first.samples, first.share.update) == ("r", MEMBER, 4, 1)
    assert first.seconds > 0
    assert not first.share.HasField("shards")
    assert control.of("Heartbeat")
    assert not control.of("Leave")


async def test_a_control_node_that_is_away_is_asked_again_and_again() -> None:
    control = FakeControl()
    control.shares = [*given(1), OVER]
    away = [Unavailable("gone"), DeadlineExceeded("silent")]
    control.failing = {method: list(away) for method in ("Join", "Next", "Report", "Heartbeat")}
    worker, shares = made(control)
    assert await worker.run() == "5 epochs are done"
    assert (len(shares.done), len(control.of("Join")), len(control.of("Report"))) == (1, 3, 3)


async def test_who_has_missed_the_end_finds_it_in_the_store() -> None:
    control = FakeControl()
    control.shares = given(1)
    asked: list[bool] = []

    async def over(joined: bool) -> str:
        asked.append(joined)
        return "has learned" if len(asked) == 3 else ""

    control.failing = {"Join": [Unavailable("gone")] * 2}
    worker = Worker(control, JOINING, FakeShares(), over=over)
    worker._shares.result = lambda share: control.failing.update(Next=[Unavailable("gone")] * 99)  # type: ignore[attr-defined]
    assert await worker.run() == "has learned"
    assert asked == [False, False, True]


async def test_a_refusal_ends_it_with_the_sentence() -> None:
    control = FakeControl()
    control.failing = {"Join": [FailedPrecondition("worker 'worker-0' would train another model than this run")]}
    with pytest.raises(InvalidInput, match="would train another model"):
        await made(control)[0].run()


async def test_who_is_unknown_joins_again() -> None:
    control = FakeControl()
    control.shares = [pb.NextResponse(rejoin=True), *given(1), OVER]
    worker, shares = made(control)
    await worker.run()
    assert shares.begun == 2
    control = FakeControl()
    control.shares = [*given(1), OVER]
    control.report = pb.ReportResponse(rejoin=True)
    worker, shares = made(control)
    await worker.run()
    assert shares.begun == 2


async def test_a_heartbeat_takes_a_share_away() -> None:
    control = FakeControl()
    control.shares = given(1)
    worker, shares = made(control)
    dropped = asyncio.Event()

    async def computing() -> None:
        await dropped.wait()

    shares.result = lambda share: computing()
    shares.drop = dropped.set  # type: ignore[method-assign]
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(worker.run())
        await until(lambda: shares.done)
        control.heartbeat = pb.HeartbeatResponse(drop=True)
        control.shares = [OVER]
        assert await running == "5 epochs are done"
    assert not control.of("Report")


async def test_a_heartbeat_that_nobody_knows_lets_it_join_again() -> None:
    control = FakeControl()
    worker, shares = made(control)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(worker.run())
        await until(lambda: worker.joined)
        control.heartbeat = pb.HeartbeatResponse(rejoin=True)
        await until(lambda: shares.begun > 1)
        control.heartbeat = pb.HeartbeatResponse()
        control.shares = [OVER]
        await running
    assert shares.drops


@pytest.mark.parametrize("error", [Unavailable("a shard is away"), FailedPrecondition("the generation is over")])
async def test_what_may_pass_is_not_reported(error: Exception) -> None:
    control = FakeControl()
    control.shares = [*given(1), *given(1), OVER]
    worker, shares = made(control)
    results: list[Any] = [error, pb.ReportRequest(samples=4)]
    shares.result = lambda share: results.pop(0)
    await worker.run()
    assert len(control.of("Report")) == 1


async def test_who_leaves_finishes_its_share_and_says_so() -> None:
    control = FakeControl()
    control.shares = given(1, 2)
    worker, shares = made(control)
    go_on = asyncio.Event()

    async def computing() -> pb.ReportRequest:
        await go_on.wait()
        return pb.ReportRequest(samples=4)

    shares.result = lambda share: computing()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(worker.run())
        await until(lambda: shares.done)
        worker.leave()
        go_on.set()
        assert await running == ""
    assert [share.update for share in shares.done] == [1]
    assert [method for method, _ in control.asked if method not in ("Heartbeat", "Next")] == ["Join", "Report", "Leave"]


async def test_who_leaves_waits_for_nobody_who_is_away() -> None:
    control = FakeControl()
    control.failing = {"Join": [Unavailable("gone")] * 10_000}
    worker, _ = made(control)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(worker.run())
        await until(lambda: len(control.of("Join")) > 2)
        worker.leave()
        assert await running == ""
    assert not control.of("Leave")
