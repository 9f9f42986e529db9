"""The Open Inference Protocol over any `Models`, as handlers of a gRPC server.

Messages come in as bytes and are decoded here: a gRPC deserializer that fails tells the caller no more than INTERNAL.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from encephalon.api.inference.v1 import inference_pb2 as pb
from encephalon.core.errors import InvalidInput, Unsupported
from encephalon.core.inference import description
from encephalon.core.inference.answer import Answers
from encephalon.core.inference.models import LoadParameter, Models
from encephalon.core.inference.names import CANCEL, CANCEL_EXTENSION, SERVICE, STREAM_MEMORY_EXTENSION
from encephalon.core.inference.session import Session, Stream
from encephalon.core.parsing import parse
from encephalon.core.shared_memory import SharedMemory
from encephalon.core.status import abort
from encephalon.core.wire import InferRequest, InferResponse, decode_request, encode_response, encode_stream_response

__all__ = ["InferenceService"]

EXTENSIONS = ("model_configuration", "model_repository", "statistics", "schedule_policy", CANCEL_EXTENSION)
SHARED_EXTENSIONS = ("system_shared_memory", STREAM_MEMORY_EXTENSION)

Context = grpc.aio.ServicerContext[Any, Any]
Request = TypeVar("Request", bound=Message)


class InferenceService:
    """`default_timeout_s` bounds requests that name no time; `max_in_flight` is per stream.

    `max_message_bytes` refuses a request with a sentence, so the server's own limit (which ends a whole stream) should
    lie above it. `shared_memory` None refuses the shared-memory calls.
    """

    def __init__(
        self,
        models: Models,
        *,
        shared_memory: SharedMemory | None = None,
        default_timeout_s: float = 60.0,
        max_in_flight: int = 1024,
        max_message_bytes: int | None = None,
        version: str = "",
    ) -> None:
        self._models = models
        self._shared_memory = shared_memory
        self._answers = Answers(models, shared_memory, default_timeout_s)
        self._max_in_flight = max_in_flight
        self._max_message_bytes = max_message_bytes
        self._version = version
        self._sessions: set[Session] = set()
        self._draining = False

    def handler(self) -> grpc.GenericRpcHandler:
        """For `server.add_generic_rpc_handlers`, under the name that clients of the protocol call."""
        methods = {
            "ModelInfer": grpc.unary_unary_rpc_method_handler(self.infer),
            "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(self.stream),
            "ServerLive": unary(pb.ServerLiveRequest, self.server_live),
            "ServerReady": unary(pb.ServerReadyRequest, self.server_ready),
            "ModelReady": unary(pb.ModelReadyRequest, self.model_ready),
            "ServerMetadata": unary(pb.ServerMetadataRequest, self.server_metadata),
            "ModelMetadata": unary(pb.ModelMetadataRequest, self.model_metadata),
            "ModelConfig": unary(pb.ModelConfigRequest, self.model_config),
            "ModelStatistics": unary(pb.ModelStatisticsRequest, self.model_statistics),
            "RepositoryIndex": unary(pb.RepositoryIndexRequest, self.repository_index),
            "RepositoryModelLoad": unary(pb.RepositoryModelLoadRequest, self.load),
            "RepositoryModelUnload": unary(pb.RepositoryModelUnloadRequest, self.unload),
            "SystemSharedMemoryStatus": unary(pb.SystemSharedMemoryStatusRequest, self.memory_status),
            "SystemSharedMemoryRegister": unary(pb.SystemSharedMemoryRegisterRequest, self.memory_register),
            "SystemSharedMemoryUnregister": unary(pb.SystemSharedMemoryUnregisterRequest, self.memory_unregister),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def drain(self) -> None:
        """Streams read no more and end when what they have read is answered, so a stopping server need not wait."""
        self._draining = True
        for session in self._sessions:
            session.drain()

    async def infer(self, message: bytes, context: Context) -> bytes:
        try:
            request = self._decode(message)
            if CANCEL in request.parameters:
                raise InvalidInput("parameter 'cancel' works on a stream only; cancel the call itself")
            response = await self._answers.answer(request, context.time_remaining())
            return self._within(encode_response(response), "answer")
        except Exception as error:  # noqa: BLE001 - becomes the status, and abort logs what is not ours
            await abort(context, error)

    async def stream(self, _: object, context: Context) -> None:
        await self.converse(context)

    async def converse(self, stream: Stream) -> None:
        """Answers the requests of one stream until it ends, whatever carries it."""
        session = Session(stream, self._decode, self._answer, self._encode, self._max_in_flight)
        self._sessions.add(session)
        if self._draining:
            session.drain()
        try:
            await session.run()
        finally:
            self._sessions.discard(session)
            if self._shared_memory is not None:
                for region in session.regions:
                    self._shared_memory.unregister(region)

    async def _answer(self, request: InferRequest) -> InferResponse:
        return await self._answers.answer(request)

    def _decode(self, message: bytes) -> InferRequest:
        return decode_request(self._within(message, "message"))

    def _encode(self, response: InferResponse) -> bytes:
        return self._within(encode_stream_response(response), "answer")

    def _within(self, message: bytes, what: str) -> bytes:
        """InvalidInput for what the transport would refuse by ending the whole stream."""
        if self._max_message_bytes is not None and len(message) > self._max_message_bytes:
            raise InvalidInput(
                f"the {what} has {len(message)} bytes, expected at most {self._max_message_bytes}; send fewer rows",
                got=len(message),
                expected=self._max_message_bytes,
            )
        return message

    def server_live(self, _: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    def server_ready(self, _: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=not self._draining and self._models.ready())

    def model_ready(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        return pb.ModelReadyResponse(ready=self._models.model_ready(request.name, request.version))

    def server_metadata(self, _: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        extensions = EXTENSIONS + (SHARED_EXTENSIONS if self._shared_memory is not None else ())
        return pb.ServerMetadataResponse(name=self._models.server_name(), version=self._version, extensions=extensions)

    def model_metadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        return description.metadata(self._models.describe(request.name, request.version))

    def model_config(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        return pb.ModelConfigResponse(config=description.config(self._models.describe(request.name, request.version)))

    def model_statistics(self, request: pb.ModelStatisticsRequest) -> pb.ModelStatisticsResponse:
        return description.statistics(self._models.statistics(request.name, request.version))

    def repository_index(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        return pb.RepositoryIndexResponse(
            models=[
                pb.RepositoryIndexResponse.ModelIndex(
                    name=entry.name, version=entry.version, state=entry.state, reason=entry.reason
                )
                for entry in self._models.index()
                if entry.state == "READY" or not request.ready
            ]
        )

    async def load(self, request: pb.RepositoryModelLoadRequest) -> pb.RepositoryModelLoadResponse:
        await self._models.load(request.model_name, plain(request.parameters))
        return pb.RepositoryModelLoadResponse()

    async def unload(self, request: pb.RepositoryModelUnloadRequest) -> pb.RepositoryModelUnloadResponse:
        await self._models.unload(request.model_name, plain(request.parameters))
        return pb.RepositoryModelUnloadResponse()

    def memory_status(self, request: pb.SystemSharedMemoryStatusRequest) -> pb.SystemSharedMemoryStatusResponse:
        return pb.SystemSharedMemoryStatusResponse(
            regions={
                each.name: pb.SystemSharedMemoryStatusResponse.RegionStatus(
                    name=each.name, key=each.key, offset=each.offset, byte_size=each.byte_size
                )
                for each in self._memory().status(request.name)
            }
        )

    def memory_register(self, request: pb.SystemSharedMemoryRegisterRequest) -> pb.SystemSharedMemoryRegisterResponse:
        self._memory().register(request.name, request.key, request.offset, request.byte_size)
        return pb.SystemSharedMemoryRegisterResponse()

    def memory_unregister(
        self, request: pb.SystemSharedMemoryUnregisterRequest
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        self._memory().unregister(request.name)
        return pb.SystemSharedMemoryUnregisterResponse()

    def _memory(self) -> SharedMemory:
        if self._shared_memory is None:
            raise Unsupported("this server uses no shared memory; send the tensors in the message")
        return self._shared_memory


def unary(
    kind: type[Request], method: Callable[[Request], Message | Awaitable[Message]]
) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler over bytes whose errors become statuses."""

    async def call(message: bytes, context: Context) -> bytes:
        try:
            answer = method(parse(kind, message))
            return (await answer if inspect.isawaitable(answer) else answer).SerializeToString()
        except Exception as error:  # noqa: BLE001 - becomes the status, and abort logs what is not ours
            await abort(context, error)

    return grpc.unary_unary_rpc_method_handler(call)


def plain(parameters: Mapping[str, pb.ModelRepositoryParameter]) -> dict[str, LoadParameter]:
    values: dict[str, LoadParameter] = {}
    for name, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is None:
            raise InvalidInput(f"parameter '{name}' came without a value", parameter=name)
        values[name] = getattr(parameter, choice)
    return values
