"""What the control node asks of a shard, whatever carries it there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as ps

__all__ = ["Transport"]


class Transport(Protocol):
    """Calls to instances of shards. Every call raises Unavailable when the instance cannot be reached,
    DeadlineExceeded, and whatever error the shard answers with."""

    def announced(self, shard: int) -> Sequence[str]:
        """The instances that are announced as this shard."""
        ...

    async def describe(self, instance: str, timeout_s: float, *, brief: bool = False) -> ps.DescribeResponse:
        """brief: without what was decided."""
        ...

    async def load(self, instance: str, request: ps.LoadRequest, timeout_s: float) -> ps.LoadResponse: ...

    async def prepare(self, instance: str, request: ps.PrepareRequest, timeout_s: float) -> ps.PrepareResponse: ...

    async def decide(self, instance: str, request: ps.DecideRequest, timeout_s: float) -> ps.DecideResponse: ...

    async def checkpoint(
        self, instance: str, request: ps.CheckpointRequest, taken: Callable[[], None], timeout_s: float
    ) -> ps.CheckpointResponse:
        """`taken` is called as soon as the shard may go on learning, before the piece is in the store."""
        ...
