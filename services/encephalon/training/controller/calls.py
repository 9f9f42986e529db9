"""Calls to shards over gRPC; shards are found by discovery."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as ps
from encephalon.core.errors import Unavailable
from encephalon.core.status import from_rpc_error
from encephalon.core.tasks import background
from encephalon.discovery import Instance, watch
from encephalon.state import KeyValue
from encephalon.training.controller.changes import Changes
from encephalon.training.runs import INSTANCES

__all__ = ["Calls", "found_shards"]

SERVICE: Final = "encephalon.api.parameter_server.v1.ParameterServerService"
OPTIONS: Final = [
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    # A shard that comes back is found within a second, however long it was away.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
]

M = TypeVar("M", bound=Message)


class Calls:
    """The `Transport` of a control node. An instance stays known after its announcement has run out, for a shard that
    was only slow comes back under its old address."""

    def __init__(self) -> None:
        self._announced: dict[str, Instance] = {}
        self._addresses: dict[str, str] = {}
        self._channels: dict[str, grpc.aio.Channel] = {}

    def take(self, instances: Sequence[Instance]) -> None:
        """Those that are announced now."""
        self._announced = {each.id: each for each in instances if each.region.startswith("shard-")}
        self._addresses.update({each.id: each.address for each in self._announced.values()})

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()

    def announced(self, shard: int) -> Sequence[str]:
        return [name for name, each in self._announced.items() if each.region == f"shard-{shard}"]

    async def describe(self, instance: str, timeout_s: float, *, brief: bool = False) -> ps.DescribeResponse:
        request = ps.DescribeRequest(brief=brief)
        return await self._call(instance, "Describe", request, ps.DescribeResponse, timeout_s)

    async def load(self, instance: str, request: ps.LoadRequest, timeout_s: float) -> ps.LoadResponse:
        return await self._call(instance, "Load", request, ps.LoadResponse, timeout_s)

    async def prepare(self, instance: str, request: ps.PrepareRequest, timeout_s: float) -> ps.PrepareResponse:
        return await self._call(instance, "Prepare", request, ps.PrepareResponse, timeout_s)

    async def decide(self, instance: str, request: ps.DecideRequest, timeout_s: float) -> ps.DecideResponse:
        return await self._call(instance, "Decide", request, ps.DecideResponse, timeout_s)

    async def checkpoint(
        self, instance: str, request: ps.CheckpointRequest, taken: Callable[[], None], timeout_s: float
    ) -> ps.CheckpointResponse:
        return await self._call(instance, "Checkpoint", request, ps.CheckpointResponse, timeout_s, taken)

    async def _call(
        self,
        instance: str,
        method: str,
        request: Message,
        kind: type[M],
        timeout_s: float,
        begun: Callable[[], None] | None = None,
    ) -> M:
        address = self._addresses.get(instance)
        if address is None:
            raise Unavailable(f"shard instance '{instance}' is not announced")
        ask: Any = self._channel(address).unary_unary(f"/{SERVICE}/{method}")
        call = ask(request.SerializeToString(), timeout=timeout_s)
        try:
            if begun is not None:
                # A shard sends its metadata when its slices lie on its disk, long before the answer.
                await call.initial_metadata()
                begun()
            return kind.FromString(await call)
        except grpc.RpcError as error:
            raise from_rpc_error(error, shard=instance) from error
        finally:
            call.cancel()

    def _channel(self, address: str) -> grpc.aio.Channel:
        if address not in self._channels:
            self._channels[address] = grpc.aio.insecure_channel(address, options=OPTIONS)
        return self._channels[address]


@contextlib.asynccontextmanager
async def found_shards(store: KeyValue, namespace: str, run: str, changes: Changes) -> AsyncIterator[Calls]:
    """Follows the announcements while the block lasts."""
    calls = Calls()

    async def follow() -> None:
        async with contextlib.aclosing(watch(store, namespace, INSTANCES + run)) as found:
            async for instances in found:
                calls.take(instances)
                changes.told()
        await asyncio.Event().wait()

    try:
        async with background("announcements of shards", follow()):
            yield calls
    finally:
        await calls.close()
