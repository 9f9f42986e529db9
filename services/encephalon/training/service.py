"""What a control node answers to workers and to those who watch a run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.message import Message

from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.core.errors import FailedPrecondition, Overloaded
from encephalon.core.parsing import parse
from encephalon.core.status import abort
from encephalon.training.controller.engine import Engine
from encephalon.training.controller.figures import show_share
from encephalon.training.controller.status import status_of

__all__ = ["TrainingService"]

SERVICE: Final = "encephalon.api.training.v1.TrainingService"
POLL_S: Final = 2.0
"""Longest wait of Next; below the deadline of a call, 2.5 s."""
LOOK_S: Final = 0.1
"""A share that has failed is due again after a pause, of which nobody tells."""
STATUS_S: Final = 1.0
BETWEEN_S: Final = 0.1
"""Between two statuses, however much changes."""
MOST_WATCHERS: Final = 64

M = TypeVar("M", bound=Message)
Context = grpc.aio.ServicerContext[Any, Any]


class TrainingService:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._clock = asyncio.get_running_loop().time
        self._watchers = 0

    def handler(self) -> grpc.GenericRpcHandler:
        methods = {
            "Join": self._method(pb.JoinRequest, self.Join),
            "Heartbeat": self._method(pb.HeartbeatRequest, self.Heartbeat),
            "Next": self._method(pb.NextRequest, self.Next),
            "Report": self._method(pb.ReportRequest, self.Report),
            "Leave": self._method(pb.LeaveRequest, self.Leave),
            "Stop": self._method(pb.StopRequest, self.Stop),
            "Watch": grpc.unary_stream_rpc_method_handler(self.Watch),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def Join(self, request: pb.JoinRequest) -> pb.JoinResponse:
        worker = self._engine.desk.join(request, self._clock())
        show_share(self._engine, worker.name)
        self._engine.changes.told()
        return self._engine.model()

    async def Heartbeat(self, request: pb.HeartbeatRequest) -> pb.HeartbeatResponse:
        return self._engine.desk.heartbeat(request, self._clock())

    async def Next(self, request: pb.NextRequest) -> pb.NextResponse:
        end = self._clock() + POLL_S
        while (response := self._engine.desk.next(request, self._clock())) is None:
            if self._clock() >= end:
                return pb.NextResponse(wait=True)
            await self._engine.changes.wait(LOOK_S)
        if response.HasField("share"):
            response.share.shards.CopyFrom(self._engine.group.message())
        return response

    async def Report(self, request: pb.ReportRequest) -> pb.ReportResponse:
        desk = self._engine.desk
        response = desk.report(request, self._clock())
        if desk.phase is not None and desk.phase.ready:
            # Only then: all who wait look for themselves, and with many workers most reports change nothing for them.
            self._engine.changes.told()
        return response

    async def Leave(self, request: pb.LeaveRequest) -> pb.LeaveResponse:
        self._engine.desk.leave(request, self._clock())
        self._engine.changes.told()
        return pb.LeaveResponse()

    async def Stop(self, request: pb.StopRequest) -> pb.StopResponse:
        self._check(request.run)
        self._engine.request_stop()
        return pb.StopResponse()

    async def Watch(self, message: bytes, context: Context) -> AsyncIterator[bytes]:
        try:
            self._check(parse(pb.WatchRequest, message).run)
            if self._watchers >= MOST_WATCHERS:
                raise Overloaded(f"{MOST_WATCHERS} watch this run already")
        except Exception as error:  # noqa: BLE001 - becomes the status
            await abort(context, error)
        self._watchers += 1
        try:
            while True:
                over = self._engine.over
                yield status_of(self._engine).SerializeToString()
                if over:
                    return
                await self._engine.changes.wait(STATUS_S)
                await asyncio.sleep(BETWEEN_S)
        finally:
            self._watchers -= 1

    def _check(self, run: str) -> None:
        if run != self._engine.settings.run:
            raise FailedPrecondition(
                f"this is the control node of the run '{self._engine.settings.run}', not of '{run[:100]}'"
            )

    def _method(self, kind: type[M], answer: Callable[[M], Awaitable[Message]]) -> grpc.RpcMethodHandler[Any, Any]:
        async def call(message: bytes, context: Context) -> bytes:
            try:
                return (await answer(parse(kind, message))).SerializeToString()
            except Exception as error:  # noqa: BLE001 - becomes the status
                await abort(context, error)

        return grpc.unary_unary_rpc_method_handler(call)
