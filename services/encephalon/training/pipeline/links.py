"""Streams to the regions of a pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
import grpc.aio

from encephalon.api.learning.v1 import learning_pb2 as pb
from encephalon.core.errors import EncephalonError, Unavailable
from encephalon.core.status import from_rpc_error

__all__ = ["Answer", "Links", "opened_links"]

SERVICE: Final = "encephalon.api.learning.v1.RegionLearningService"
MAX_MESSAGE_BYTES: Final = 256 << 20
"""As a region that learns takes by default."""

OPTIONS: Final = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.enable_http_proxy", 0),
]

Answer = tuple[str, pb.LearnResponse | EncephalonError]
"""A region, and what came from it: an error ends its stream."""


class Links:
    """One channel per address, one stream per region and share. Lives in one event loop."""

    def __init__(self) -> None:
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._outboxes: dict[str, asyncio.Queue[bytes]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._answers: asyncio.Queue[Answer] = asyncio.Queue()
        """Bounded by the passes that are under way, and beats."""

    async def prepare(self, region: str, address: str, request: pb.PrepareRequest, timeout_s: float) -> None:
        """Raises what the region answers, with its name."""
        call: Any = self._channel(address).unary_unary(
            f"/{SERVICE}/Prepare",
            request_serializer=pb.PrepareRequest.SerializeToString,
            response_deserializer=pb.PrepareResponse.FromString,
        )
        try:
            await call(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, region=region) from None

    async def open(self, region: str, address: str, begin: pb.Begin) -> None:
        """A stream for one share; answers come out of `next`."""
        outbox: asyncio.Queue[bytes] = asyncio.Queue()
        outbox.put_nowait(pb.LearnRequest(begin=begin).SerializeToString())
        self._outboxes[region] = outbox
        name = f"read region {region}"
        self._tasks.append(
            asyncio.create_task(self._read(region, self._channel(address), outbox, self._answers), name=name)
        )

    async def send(self, messages: Sequence[tuple[str, bytes]]) -> None:
        for region, message in messages:
            self._outboxes[region].put_nowait(message)

    async def next(self, timeout_s: float) -> list[Answer]:
        """What has come, in order; [] when nothing has within the time."""
        try:
            async with asyncio.timeout(timeout_s):
                found = [await self._answers.get()]
        except TimeoutError:
            return []
        while not self._answers.empty():
            found.append(self._answers.get_nowait())
        return found

    async def end(self) -> None:
        """Breaks off all streams: regions drop what they do for them."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._outboxes, self._answers = {}, asyncio.Queue()

    async def keep(self, addresses: Sequence[str]) -> None:
        """Closes what is not among them any more."""
        for address in [address for address in self._channels if address not in addresses]:
            await self._channels.pop(address).close()

    async def close(self) -> None:
        await self.end()
        await self.keep([])

    async def _read(
        self, region: str, channel: grpc.aio.Channel, outbox: asyncio.Queue[bytes], answers: asyncio.Queue[Answer]
    ) -> None:
        async def passes() -> AsyncIterator[bytes]:
            while message := await outbox.get():
                yield message

        stream: Any = channel.stream_stream(
            f"/{SERVICE}/Learn", request_serializer=None, response_deserializer=pb.LearnResponse.FromString
        )
        call = stream(passes())
        try:
            async for message in call:
                answers.put_nowait((region, message))
                if message.HasField("done"):
                    return
            answers.put_nowait((region, Unavailable("the stream ended before the share was done")))
        except grpc.aio.AioRpcError as error:
            answers.put_nowait((region, from_rpc_error(error)))
        finally:
            outbox.put_nowait(b"")  # ends what waits for passes to send, which gRPC does not when a call is cancelled
            call.cancel()

    def _channel(self, address: str) -> grpc.aio.Channel:
        if address not in self._channels:
            self._channels[address] = grpc.aio.insecure_channel(address, options=OPTIONS)
        return self._channels[address]


@asynccontextmanager
async def opened_links() -> AsyncIterator[Links]:
    links = Links()
    try:
        yield links
    finally:
        await links.close()
