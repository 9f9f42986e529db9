"""How far one worker may be ahead of another."""

from __future__ import annotations

from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.training.controller.epoch import Epoch
from encephalon.training.controller.members import Worker
from encephalon.training.controller.streams import Stream


def stream_of(staleness: int) -> Stream:
    return Stream(Epoch(0, 10_000), 1, first_update=1, version=lambda: 0, size=lambda worker: 1, staleness=staleness)


def pushes(stream: Stream, worker: Worker) -> bool:
    share = stream.next(worker, 0.0)
    if share is not None:
        stream.done(worker, pb.ReportRequest(share=share))
    return share is not None


def member(name: str) -> Worker:
    return Worker(name, "1", "here", 0.0)


def test_what_a_lost_worker_has_pushed_does_not_count_for_the_one_that_comes_back() -> None:
    stream, a, b = stream_of(2), member("a"), member("b")
    while pushes(stream, b):
        pass
    stream.gone(b)
    assert pushes(stream, a)
    assert stream.next(b, 0.0) is not None
    while stream.pushed:
        stream.decided(stream.pushed.popleft())
    # b has finished nothing since it is back, so a may be three updates ahead of it, and no more.
    assert [pushes(stream, a) for _ in range(4)] == [True, True, False, False]


def test_who_is_gone_holds_nobody_back_and_who_is_new_begins_where_the_slowest_is() -> None:
    stream, a, b = stream_of(1), member("a"), member("b")
    assert stream.next(b, 0.0) is not None
    assert [pushes(stream, a) for _ in range(3)] == [True, True, False]
    stream.gone(b)
    while stream.pushed:
        stream.decided(stream.pushed.popleft())
    assert pushes(stream, a)
    assert pushes(stream, member("c"))
