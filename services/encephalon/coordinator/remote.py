"""A replica in another process, over one long-lived connection."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence

from encephalon.api.discovery.v1.instance_pb2 import Instance
from encephalon.coordinator.replicas import Replica
from encephalon.coordinator.sharing import Gathering
from encephalon.core.errors import EncephalonError, Unavailable
from encephalon.core.inference import CANCEL_EXTENSION, InferenceClient, InferStream, link_path
from encephalon.core.wire import InferRequest, InferResponse

__all__ = ["RemoteReplica"]

PROBE_S = 1.0
# A peer that lies silent for this long is asked whether it lives; a dead host is found after twice as long.
KEEPALIVE = (("grpc.keepalive_time_ms", 5000), ("grpc.keepalive_timeout_ms", 5000))
# Beyond what a mailbox holds there is no use in sending more.
MAX_IN_FLIGHT = 4096


class RemoteReplica(Replica):
    """Opens its connection when it is first probed, and anew when a probe finds it broken.

    Addresses are tried in order (a Unix socket before TCP). A server that can stop single requests of a stream (ours)
    is asked over one stream; any other gets a call per request, whose cancellation every server understands.
    """

    __slots__ = (
        "_addresses",
        "_client",
        "_gathering",
        "_loop",
        "_max_message_bytes",
        "_model",
        "_share",
        "_stream",
        "_version",
    )

    def __init__(
        self,
        id: str,
        addresses: Sequence[str],
        model: str,
        max_message_bytes: int,
        *,
        version: str = "",
        max_rows: int = 1,
        pressure: Callable[[], int] = lambda: 0,
        share: bool = False,
        instance: Instance | None = None,
    ) -> None:
        """`version`: the model version that it must have to be of use; empty means any.

        `max_rows`: how many rows of several requests may share a message; `pressure`: how many requests run.

        `share`: the replica is on this machine, so that large tensors may go through shared memory.
        """
        super().__init__(id, instance)
        self._addresses = addresses
        self._model = model
        self._version = version
        self._max_message_bytes = max_message_bytes
        self._loop = asyncio.get_running_loop()
        self._gathering = Gathering(self._send, max_rows, pressure)
        self._client: InferenceClient | None = None
        self._stream: InferStream | None = None
        self._share = share
        # Not chosen until the first probe has connected it.
        self.ejected = True

    @property
    def broken(self) -> bool:
        return self._client is None or (self._stream is not None and self._stream.broken is not None)

    def send(self, request: InferRequest, deadline: float) -> asyncio.Future[InferResponse]:
        return self._gathering.send(request, deadline)

    def _send(self, request: InferRequest, deadline: float) -> asyncio.Future[InferResponse]:
        timeout_s = max(deadline - self._loop.time(), 0.001)
        if self._stream is not None:
            return self._stream.submit(request, timeout_s)
        if self._client is not None:
            return self._loop.create_task(self._client.infer(request, timeout_s))
        failed: asyncio.Future[InferResponse] = self._loop.create_future()
        failed.set_exception(Unavailable(f"{self.id} is not connected"))
        return failed

    async def probe(self) -> bool:
        try:
            async with asyncio.timeout(PROBE_S * len(self._addresses)):
                if self.broken:
                    await self.close()
                    await self._connect()
                return self._client is not None and await self._client.model_ready(
                    self._model, self._version, timeout_s=PROBE_S
                )
        except (EncephalonError, TimeoutError):
            return False

    async def close(self) -> None:
        stream, self._stream = self._stream, None
        client, self._client = self._client, None
        if stream is not None:
            await stream.close()
        if client is not None:
            await client.close()

    async def _connect(self) -> None:
        for number, address in enumerate(self._addresses, 1):
            client = InferenceClient(address, max_message_bytes=self._max_message_bytes, options=KEEPALIVE)
            try:
                await client.__aenter__()
                server = await client.server(PROBE_S)
                if CANCEL_EXTENSION in server.extensions:
                    self._stream = await self._open_stream(client)
            except EncephalonError:
                await client.close()
                if number == len(self._addresses):
                    raise
            except BaseException:
                await client.close()
                raise
            else:
                self._client = client
                return

    async def _open_stream(self, client: InferenceClient) -> InferStream:
        """Over the region's local link if it is on this machine and has one."""
        link = link_path(client.address)
        return await client.open_stream(
            max_in_flight=MAX_IN_FLIGHT,
            shared_memory=self._share,
            link=link if os.path.exists(link) else "",  # noqa: ASYNC240 - a look at a local socket
            timeout_s=PROBE_S,
        )
