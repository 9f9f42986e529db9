"""What the control node orders, as gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar, cast

import grpc
from google.protobuf.message import Message

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.core.errors import DeadlineExceeded, EncephalonError, InvalidInput
from encephalon.core.host import host_identity
from encephalon.core.parsing import parse
from encephalon.core.status import abort
from encephalon.parameter_server.data import ParameterData
from encephalon.parameter_server.decisions import Decided, Decision
from encephalon.parameter_server.shard import Shard

__all__ = ["ParameterServerService"]

SERVICE: Final = "encephalon.api.parameter_server.v1.ParameterServerService"
DECISIONS: Final = {
    pb.DecideRequest.DECISION_APPLY: Decision.APPLY,
    pb.DecideRequest.DECISION_SKIP: Decision.SKIP,
    pb.DecideRequest.DECISION_DROP: Decision.DROP,
}
NAMES: Final = {decision: number for number, decision in DECISIONS.items()}
MOST_WAIT_S: Final = 60.0
"""Of a call without a deadline."""
MOST_NOTES_BYTES: Final = 32 << 20
DECISION_BYTES: Final = 64
"""Beside the note."""
MARGIN_S: Final = 0.1
"""Before the caller's deadline, so that he hears what was waited for."""

M = TypeVar("M", bound=Message)


class ParameterServerService:
    """data_address: of the data plane, for others."""

    def __init__(self, shard: Shard, data: ParameterData, data_address: str) -> None:
        self._shard = shard
        self._data = data
        self._data_address = data_address

    def handler(self) -> grpc.GenericRpcHandler:
        methods = {
            "Describe": method(pb.DescribeRequest, self.Describe),
            "Load": method(pb.LoadRequest, self.Load),
            "Prepare": method(pb.PrepareRequest, self.Prepare),
            "Decide": method(pb.DecideRequest, self.Decide),
            "Checkpoint": grpc.unary_unary_rpc_method_handler(self.Checkpoint),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def Describe(self, request: pb.DescribeRequest, seconds: float) -> pb.DescribeResponse:
        shard = self._shard
        described = pb.DescribeResponse(
            incarnation=shard.incarnation, data_address=self._data_address, host=host_identity()
        )
        if (store := shard.store) is None:
            return described
        described.MergeFrom(
            pb.DescribeResponse(
                run=shard.run,
                generation=store.generation,
                shard=store.shard,
                version=store.version,
                decided=[] if request.brief else [encoded(each) for each in told(store.decided)],
                prepared=store.prepared,
                held_bytes=store.held_bytes,
                buffered_bytes=store.buffered_bytes,
                received_bytes=self._data.received_bytes,
                sent_bytes=self._data.sent_bytes,
                learning_rate=store.learning_rate,
            )
        )
        return described

    async def Load(self, request: pb.LoadRequest, seconds: float) -> pb.LoadResponse:
        return pb.LoadResponse(version=(await self._shard.load(request)).version)

    async def Prepare(self, request: pb.PrepareRequest, seconds: float) -> pb.PrepareResponse:
        store = self._shard.held(request.run, request.generation)
        wanted = [(each.rank, each.attempt) for each in request.contributions]
        try:
            async with asyncio.timeout(seconds):
                prepared = await store.prepare(request.update, wanted)
        except TimeoutError:
            raise DeadlineExceeded(
                f"update {request.update} waits at shard {store.shard} for what ranks "
                f"{store.missing(request.update)} push",
                update=request.update,
            ) from None
        return pb.PrepareResponse(
            squared_norm=prepared.squared_norm,
            non_finite=[pb.NonFinite(rank=each.rank, tensor=each.tensor) for each in prepared.not_finite],
        )

    async def Decide(self, request: pb.DecideRequest, seconds: float) -> pb.DecideResponse:
        store = self._shard.held(request.run, request.generation)
        if (decision := DECISIONS.get(request.decision)) is None:
            raise InvalidInput(f"update {request.update} came with decision {request.decision}, which is none")
        if decision is Decision.APPLY and not 0.0 < request.scale < float("inf"):
            raise InvalidInput(f"update {request.update} came with scale {request.scale}; 1 leaves the sum as it is")
        version, rate = await store.decide(
            request.update, decision, version=request.version, scale=request.scale, note=request.note
        )
        return pb.DecideResponse(version=version, learning_rate=rate)

    async def Checkpoint(self, message: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        try:
            request = parse(pb.CheckpointRequest, message)
            store = self._shard.held(request.run, request.generation)
            store.published(request.published)
            piece = await self._shard.checkpoint(
                store, request.version, request.key, lambda: context.send_initial_metadata(())
            )
            return pb.CheckpointResponse(piece=piece).SerializeToString()
        except EncephalonError as error:
            await abort(context, error)


def told(decided: Sequence[Decided]) -> Sequence[Decided]:
    """The last ones, as many as fit into a message."""
    left = MOST_NOTES_BYTES
    for at in range(len(decided) - 1, -1, -1):
        left -= len(decided[at].note) + DECISION_BYTES
        if left < 0:
            return decided[at + 1 :]
    return decided


def encoded(decided: Decided) -> pb.Decided:
    return pb.Decided(
        update=decided.update,
        version=decided.version,
        decision=NAMES[decided.decision],
        scale=decided.scale,
        note=decided.note,
    )


def method(kind: type[M], answer: Callable[[M, float], Awaitable[Message]]) -> grpc.RpcMethodHandler[Any, Any]:
    """Decodes, answers with the seconds that are left, encodes; an error becomes the status."""

    async def call(message: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        left = cast(float | None, context.time_remaining())  # None without a deadline, whatever its types say
        seconds = MOST_WAIT_S if left is None else max(0.0, left - min(MARGIN_S, left / 2))
        try:
            return (await answer(parse(kind, message), seconds)).SerializeToString()
        except EncephalonError as error:
            await abort(context, error)

    return grpc.unary_unary_rpc_method_handler(call)
