"""What a driver asks of a region that learns."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from encephalon.api.learning.v1 import learning_pb2 as pb
from encephalon.core.parsing import parse
from encephalon.core.status import abort
from encephalon.region.learning.actor import LearningActor

__all__ = ["SERVICE", "RegionLearningService"]

SERVICE = "encephalon.api.learning.v1.RegionLearningService"

Context = grpc.aio.ServicerContext[Any, Any]


class RegionLearningService:
    def __init__(self, actor: LearningActor) -> None:
        self._actor = actor

    def handler(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Prepare": grpc.unary_unary_rpc_method_handler(self.Prepare),
                "Learn": grpc.stream_stream_rpc_method_handler(self.Learn),
            },
        )

    async def Prepare(self, message: bytes, context: Context) -> bytes:
        try:
            tensors = await self._actor.prepare(parse(pb.PrepareRequest, message))
            return pb.PrepareResponse(tensors=tensors).SerializeToString()
        except Exception as error:  # noqa: BLE001 - becomes the status
            await abort(context, error)

    async def Learn(self, messages: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        """Errors become the status where every stream's do, in `core.serving`."""
        answers = self._actor.learn(parsed(messages))
        try:
            async for answer in answers:
                yield answer.SerializeToString()
        finally:
            await answers.aclose()


async def parsed(messages: AsyncIterator[bytes]) -> AsyncIterator[pb.LearnRequest]:
    async for message in messages:
        yield parse(pb.LearnRequest, message)
