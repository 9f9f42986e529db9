"""A client of any server of the Open Inference Protocol; every call has a deadline, every error is of `core.errors`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from encephalon.api.inference.v1 import inference_pb2 as pb
from encephalon.api.inference.v1 import model_config_pb2 as config_pb
from encephalon.core.errors import Internal, InvalidInput, Unsupported
from encephalon.core.inference import description
from encephalon.core.inference.lending import Lender
from encephalon.core.inference.link import open_link
from encephalon.core.inference.models import (
    LoadParameter,
    ModelDescription,
    ModelIndexEntry,
    ModelState,
    ModelStatistics,
)
from encephalon.core.inference.names import CANCEL_EXTENSION, STREAM_MEMORY_EXTENSION, method
from encephalon.core.inference.stream import InferStream, encode_within
from encephalon.core.status import from_rpc_error
from encephalon.core.wire import InferRequest, InferResponse, decode_response

__all__ = ["InferenceClient", "ServerDescription"]

DEFAULT_MAX_MESSAGE_BYTES = 64 * 2**20
# Control calls answer from memory; loading a model may read weights.
CONTROL_TIMEOUT_S = 5.0
LOAD_TIMEOUT_S = 120.0
# What a server may add to the largest message: its error, its parameters.
FRAME_SLACK = 65536

Answer = TypeVar("Answer", bound=Message)


@dataclass(frozen=True, slots=True)
class ServerDescription:
    """Who serves, and what it speaks beyond the protocol."""

    name: str
    version: str
    extensions: tuple[str, ...]


class InferenceClient:
    """One connection to `address` ("host:port" or "unix:/path"), open between entering and leaving.

    `metadata` is sent with every call (a bearer token, say). `region` is put into the details of every error.
    """

    def __init__(
        self,
        address: str,
        *,
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Sequence[tuple[str, str]] = (),
        options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        self.address = address
        self._max_message_bytes = max_message_bytes
        self._credentials = credentials
        self._metadata = tuple(metadata)
        self._options = channel_options(max_message_bytes) + list(options)
        self._channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> Self:
        if self._credentials is None:
            self._channel = grpc.aio.insecure_channel(self.address, self._options)
        else:
            self._channel = grpc.aio.secure_channel(self.address, self._credentials, self._options)
        self._infer: Any = self._channel.unary_unary(method("ModelInfer"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancels what is still under way. Closing twice is harmless."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def infer(self, request: InferRequest, timeout_s: float) -> InferResponse:
        """One question by a call of its own. Cancelling it stops the work at the server."""
        message = encode_within(request, self._max_message_bytes)
        self._open()
        try:
            answer: Any = await self._infer(message, timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
        try:
            return decode_response(answer)
        except InvalidInput as error:
            raise Internal(f"{self.address} sent a malformed answer: {error.message}", address=self.address) from None

    async def open_stream(
        self,
        *,
        max_in_flight: int = 256,
        shared_memory: bool = False,
        link: str = "",
        timeout_s: float = CONTROL_TIMEOUT_S,
    ) -> InferStream:
        """A stream for many requests at once; asks the server what it speaks first, so Unavailable comes early.

        With `shared_memory` tensors of 64 KiB and more go through memory that both sides see, if the server is on this
        host and allows names that begin with "/encephalon-"; otherwise in messages, as ever. `link` is the path of the
        server's local link, which then carries the stream; Unavailable when there is none.
        """
        extensions = (await self.server(timeout_s)).extensions
        call: Any
        if link:
            call = await open_link(link, self._max_message_bytes + FRAME_SLACK, timeout_s)
        else:
            call = self._open().stream_stream(method("ModelStreamInfer"))(metadata=self._metadata)
        lending = shared_memory and STREAM_MEMORY_EXTENSION in extensions
        return InferStream(
            call,
            address=self.address,
            max_in_flight=max_in_flight,
            max_message_bytes=self._max_message_bytes,
            cancels=CANCEL_EXTENSION in extensions,
            lender=Lender(self.register_memory) if lending else None,
        )

    async def live(self, timeout_s: float = CONTROL_TIMEOUT_S) -> bool:
        return (await self._ask("ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse, timeout_s)).live

    async def ready(self, timeout_s: float = CONTROL_TIMEOUT_S) -> bool:
        return (await self._ask("ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse, timeout_s)).ready

    async def model_ready(self, name: str, version: str = "", timeout_s: float = CONTROL_TIMEOUT_S) -> bool:
        request = pb.ModelReadyRequest(name=name, version=version)
        return (await self._ask("ModelReady", request, pb.ModelReadyResponse, timeout_s)).ready

    async def server(self, timeout_s: float = CONTROL_TIMEOUT_S) -> ServerDescription:
        found = await self._ask("ServerMetadata", pb.ServerMetadataRequest(), pb.ServerMetadataResponse, timeout_s)
        return ServerDescription(found.name, found.version, tuple(found.extensions))

    async def metadata(
        self, name: str, version: str = "", timeout_s: float = CONTROL_TIMEOUT_S
    ) -> pb.ModelMetadataResponse:
        request = pb.ModelMetadataRequest(name=name, version=version)
        return await self._ask("ModelMetadata", request, pb.ModelMetadataResponse, timeout_s)

    async def config(self, name: str, version: str = "", timeout_s: float = CONTROL_TIMEOUT_S) -> config_pb.ModelConfig:
        request = pb.ModelConfigRequest(name=name, version=version)
        return (await self._ask("ModelConfig", request, pb.ModelConfigResponse, timeout_s)).config

    async def describe(self, name: str, version: str = "", timeout_s: float = CONTROL_TIMEOUT_S) -> ModelDescription:
        """Metadata and config in one; a server without ModelConfig is described by its metadata alone."""
        found = await self.metadata(name, version, timeout_s)
        try:
            more = await self.config(name, version, timeout_s)
        except Unsupported:
            more = None
        return description.describe(found, more)

    async def statistics(
        self, name: str = "", version: str = "", timeout_s: float = CONTROL_TIMEOUT_S
    ) -> list[ModelStatistics]:
        request = pb.ModelStatisticsRequest(name=name, version=version)
        return description.read_statistics(
            await self._ask("ModelStatistics", request, pb.ModelStatisticsResponse, timeout_s)
        )

    async def index(self, ready: bool = False, timeout_s: float = CONTROL_TIMEOUT_S) -> list[ModelIndexEntry]:
        """With `ready` only the models that can answer now."""
        request = pb.RepositoryIndexRequest(ready=ready)
        found = await self._ask("RepositoryIndex", request, pb.RepositoryIndexResponse, timeout_s)
        return [ModelIndexEntry(each.name, each.version, state(each.state), each.reason) for each in found.models]

    async def load(
        self, name: str, parameters: Mapping[str, LoadParameter] | None = None, timeout_s: float = LOAD_TIMEOUT_S
    ) -> None:
        request = pb.RepositoryModelLoadRequest(model_name=name, parameters=load_parameters(parameters or {}))
        await self._ask("RepositoryModelLoad", request, pb.RepositoryModelLoadResponse, timeout_s)

    async def unload(
        self, name: str, parameters: Mapping[str, LoadParameter] | None = None, timeout_s: float = LOAD_TIMEOUT_S
    ) -> None:
        request = pb.RepositoryModelUnloadRequest(model_name=name, parameters=load_parameters(parameters or {}))
        await self._ask("RepositoryModelUnload", request, pb.RepositoryModelUnloadResponse, timeout_s)

    async def register_memory(
        self, name: str, key: str, byte_size: int, offset: int = 0, timeout_s: float = CONTROL_TIMEOUT_S
    ) -> None:
        """Lends POSIX shared memory `key` to the server, as `name`."""
        request = pb.SystemSharedMemoryRegisterRequest(name=name, key=key, offset=offset, byte_size=byte_size)
        await self._ask("SystemSharedMemoryRegister", request, pb.SystemSharedMemoryRegisterResponse, timeout_s)

    async def unregister_memory(self, name: str, timeout_s: float = CONTROL_TIMEOUT_S) -> None:
        request = pb.SystemSharedMemoryUnregisterRequest(name=name)
        await self._ask("SystemSharedMemoryUnregister", request, pb.SystemSharedMemoryUnregisterResponse, timeout_s)

    async def _ask(self, name: str, request: Message, kind: type[Answer], timeout_s: float) -> Answer:
        call: Any = self._open().unary_unary(method(name))
        try:
            answer: Any = await call(request.SerializeToString(), timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
        try:
            return kind.FromString(answer)
        except DecodeError:
            raise Internal(f"{self.address} sent a malformed answer to {name}", address=self.address) from None

    def _open(self) -> grpc.aio.Channel:
        if self._channel is None:
            raise RuntimeError("InferenceClient is used outside its `async with` block")
        return self._channel


def channel_options(max_message_bytes: int) -> list[tuple[str, Any]]:
    # A margin for what the server adds: an answer that is too large should be refused by its server with a sentence.
    return [
        ("grpc.max_send_message_length", max_message_bytes + 65536),
        ("grpc.max_receive_message_length", max_message_bytes + 65536),
        # Channels to one address otherwise share a connection, and so its flow control.
        ("grpc.use_local_subchannel_pool", 1),
        # A restarted region is found again within a second; the default grows to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
    ]


def load_parameters(parameters: Mapping[str, LoadParameter]) -> dict[str, pb.ModelRepositoryParameter]:
    return {name: load_parameter(name, value) for name, value in parameters.items()}


def load_parameter(name: str, value: LoadParameter) -> pb.ModelRepositoryParameter:
    if isinstance(value, bool):
        return pb.ModelRepositoryParameter(bool_param=value)
    if isinstance(value, int):
        return pb.ModelRepositoryParameter(int64_param=value)
    if isinstance(value, str):
        return pb.ModelRepositoryParameter(string_param=value)
    return pb.ModelRepositoryParameter(bytes_param=value)


def state(text: str) -> ModelState:
    if text == "READY":
        return "READY"
    return "LOADING" if text == "LOADING" else "UNAVAILABLE"
