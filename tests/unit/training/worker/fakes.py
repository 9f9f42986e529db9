"""Shards and a control node that are nothing but lists, for what computes and asks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import torch
from google.protobuf.message import Message
from torch import Tensor

from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.core.errors import Cancelled

__all__ = ["FakeClient", "FakeControl", "share_of"]


def share_of(start: int = 0, stop: int = 4, **more: Any) -> pb.Share:
    values = {"kind": pb.Share.KIND_TRAIN, "generation": 1, "update": 1, "divisor": stop - start, "seed": 5}
    return pb.Share(start=start, stop=stop, **{**values, **more})


class FakePull:
    """Fills a tensor when it is waited for, and not before; `log` has what happened in order."""

    def __init__(self, client: FakeClient, into: Mapping[str, Tensor]) -> None:
        self._client, self._into = client, dict(into)
        self.aborted = False

    def wait(self, name: str) -> None:
        if self.aborted:
            raise Cancelled("the pull was given up")
        if name in self._into:
            self._client.log.append(f"wait {name}")
            with torch.no_grad():
                self._into.pop(name).copy_(self._client.weights[name])

    def wait_all(self) -> None:
        for name in list(self._into):
            self.wait(name)

    def abort(self) -> None:
        self.aborted = True


class FakePush:
    def __init__(self, client: FakeClient) -> None:
        self._client = client
        self.sent: dict[str, Tensor | None] = {}
        self.finished = self.aborted = False

    def gradient(self, name: str, tensor: Tensor | None) -> None:
        assert name not in self.sent, "sent twice"
        self._client.log.append(f"push {name}")
        self.sent[name] = None if tensor is None else tensor.detach().clone()

    def value(self, name: str, tensor: Tensor) -> None:
        self.gradient(name, tensor)

    def finish(self) -> None:
        self.finished = True

    def abort(self) -> None:
        self.aborted = True


class FakeClient:
    """`weights` are what is pulled."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.weights = {name: each.detach().clone() for name, each in weights.items()}
        self.log: list[str] = []
        self.pushes: list[FakePush] = []
        self.pulls: list[FakePull] = []
        self.sent_bytes = self.received_bytes = 0
        self.closed = False

    def connect(self, shards: pb.Shards) -> None:
        self.received_bytes += 1

    def pulling(self, share: pb.Share, into: Mapping[str, Tensor]) -> FakePull:
        self.received_bytes += 10
        self.pulls.append(FakePull(self, into))
        return self.pulls[-1]

    def pushing(self, share: pb.Share) -> FakePush:
        self.sent_bytes += 20
        self.pushes.append(FakePush(self))
        return self.pushes[-1]

    def close(self) -> None:
        self.closed = True


Answers = Callable[[Message], Message | Awaitable[Message]]


class FakeControl:
    """Answers by method; an error that is put for a method is raised once for each time it was put."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.shares: list[pb.NextResponse] = []
        self.failing: dict[str, list[Exception]] = {}
        self.heartbeat = pb.HeartbeatResponse()
        self.report = pb.ReportResponse()

    async def ask(self, method: str, request: Any, answer: Any, *, timeout_s: float) -> Any:
        self.asked.append((method, request))
        if failures := self.failing.get(method):
            raise failures.pop(0)
        if method == "Next":
            await asyncio.sleep(0.001)
            return self.shares.pop(0) if self.shares else pb.NextResponse(wait=True)
        if method == "Heartbeat":
            return self.heartbeat
        return self.report if method == "Report" else answer()

    def of(self, method: str) -> list[Any]:
        return [request for asked, request in self.asked if asked == method]
