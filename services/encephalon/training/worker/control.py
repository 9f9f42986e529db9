"""The control node of a run, wherever it is now."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from encephalon.api.discovery.v1.instance_pb2 import Instance
from encephalon.core.errors import Cancelled, DeadlineExceeded, EncephalonError, Internal, Retryable, Unavailable
from encephalon.core.status import from_rpc_error
from encephalon.core.tasks import background
from encephalon.discovery import watch
from encephalon.state import KeyValue
from encephalon.training.runs import INSTANCES

__all__ = ["PASSING", "Control", "following"]

LOG = logging.getLogger(__name__)

SERVICE: Final = "encephalon.api.training.v1.TrainingService"
CONTROLLER: Final = "controller"
RETRY_S: Final = 0.2
PASSING: Final = (Retryable, DeadlineExceeded, Cancelled, Internal)
"""What a control node that dies, starts or stands still answers; it is asked again."""

OPTIONS: Final = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.enable_http_proxy", 0),
]

Answer = TypeVar("Answer", bound=Message)


class Control:
    """Asks the control node that is announced. Where two are, one was killed a moment ago: they are tried in turns."""

    def __init__(self) -> None:
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._current = ""
        self._there = asyncio.Event()

    async def ask(self, method: str, request: Message, answer: type[Answer], *, timeout_s: float) -> Answer:
        """Raises Unavailable when no control node is known within the time, and what it answers."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._there.wait()
        except TimeoutError:
            raise Unavailable("no control node of the run is announced") from None
        address = self._current
        call: Any = self._channels[address].unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        try:
            found: Answer = await call(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            known = from_rpc_error(error)
            if isinstance(known, Unavailable | DeadlineExceeded):
                self._other_than(address)
            raise known from None
        return found

    async def announced(self, addresses: Sequence[str]) -> None:
        """These are the control nodes now; while none is announced, the last one is still asked."""
        if not addresses:
            return
        gone = [address for address in self._channels if address not in addresses]
        for address in addresses:
            if address not in self._channels:
                LOG.info("a control node is there", extra={"address": address})
                self._channels[address] = grpc.aio.insecure_channel(address, options=OPTIONS)
                self._current = address
        if self._current not in addresses:
            self._current = addresses[-1]
        self._there.set()
        for address in gone:
            await self._channels.pop(address).close()

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()

    def _other_than(self, address: str) -> None:
        if self._current == address:
            known = list(self._channels)
            self._current = known[(known.index(address) + 1) % len(known)] if address in known else known[0]


@asynccontextmanager
async def following(store: KeyValue, namespace: str, run: str) -> AsyncIterator[Control]:
    """The control node of the run, followed while the block lasts, also when the store is away for a while."""
    control = Control()
    try:
        async with background(f"follow the control node of {run}", _follow(control, store, namespace, run)):
            yield control
    finally:
        await control.close()


async def _follow(control: Control, store: KeyValue, namespace: str, run: str) -> None:
    while True:
        try:
            async with aclosing(watch(store, namespace, INSTANCES + run)) as changes:
                async for instances in changes:
                    await control.announced([each.address for each in instances if _leads(each)])
        except EncephalonError as error:
            LOG.warning("the control node cannot be looked for yet", extra={"cause": error.message})
        await asyncio.sleep(RETRY_S)


def _leads(instance: Instance) -> bool:
    return instance.region == CONTROLLER and instance.state != Instance.STATE_DRAINING
