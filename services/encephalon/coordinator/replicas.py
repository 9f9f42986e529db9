"""One replica of a region as the coordinator sees it: where requests go, and what is known of how it fares."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from encephalon.api.discovery.v1.instance_pb2 import Instance
from encephalon.core.wire import InferRequest, InferResponse

__all__ = ["Answering", "InProcessReplica", "Replica"]

# The weight of the newest latency in the moving average: the last ten or so requests count.
NEWEST = 0.15


class Answering(Protocol):
    """Whatever answers requests: a region's actor in this process, a stream to one elsewhere."""

    async def infer(self, request: InferRequest, deadline: float | None) -> InferResponse:
        """`deadline` is a time of the monotonic clock. Cancelling the awaiting task stops the work."""
        ...


AnswerNow = Callable[[InferRequest, float | None], InferResponse | None]


class Replica:
    """What every kind of replica has in common; `send` and `probe` are its own."""

    __slots__ = ("ejected", "failures", "id", "instance", "latency_s", "leaving", "outstanding", "rest_s")

    def __init__(self, id: str, instance: Instance | None = None) -> None:
        self.id = id
        self.instance = instance or Instance(id=id, state=Instance.STATE_READY)
        self.outstanding = 0
        # Moving average; 0 means that nothing is known yet.
        self.latency_s = 0.0
        self.failures = 0
        self.ejected = False
        # How long it rested before the last probe; grows until it answers a request.
        self.rest_s = 0.0
        self.leaving = False

    @property
    def broken(self) -> bool:
        """Whether its connection is gone, so that every request would fail."""
        return False

    def answer_now(self, request: InferRequest, deadline: float) -> InferResponse | None:
        """The answer, if it can be had without waiting; None asks for `send`. May raise whatever the region raises."""
        return None

    def send(self, request: InferRequest, deadline: float) -> asyncio.Future[InferResponse]:
        """Starts the request; cancelling the future stops it. Never raises: a failure is in the future."""
        raise NotImplementedError

    async def probe(self) -> bool:
        """Whether it would answer a request now; within a second."""
        raise NotImplementedError

    async def close(self) -> None:
        """Ends what was opened for it. Harmless when repeated."""

    def answered(self, latency_s: float) -> None:
        self.failures = 0
        self.rest_s = 0.0
        known = self.latency_s
        self.latency_s = known + NEWEST * (latency_s - known) if known else latency_s


class InProcessReplica(Replica):
    """A region's actor in this process: activations pass by reference.

    An actor may have a method `infer_now` beside `infer`: it answers without waiting, or gives None when it cannot.
    """

    __slots__ = ("_loop", "_now", "_target")

    def __init__(self, id: str, target: Answering, instance: Instance | None = None) -> None:
        super().__init__(id, instance)
        self._target = target
        self._now: AnswerNow | None = getattr(target, "infer_now", None)
        self._loop = asyncio.get_running_loop()

    def answer_now(self, request: InferRequest, deadline: float) -> InferResponse | None:
        return self._now(request, deadline) if self._now is not None else None

    def send(self, request: InferRequest, deadline: float) -> asyncio.Future[InferResponse]:
        return self._loop.create_task(self._target.infer(request, deadline))

    async def probe(self) -> bool:
        return True
