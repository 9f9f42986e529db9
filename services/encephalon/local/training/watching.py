"""Looks at a run through its control node, wherever that is now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final

import grpc
import grpc.aio
import structlog

from encephalon.api.training.v1.training_pb2 import RunStatus, StopRequest, StopResponse, WatchRequest
from encephalon.core.errors import EncephalonError, InvalidInput, Unavailable
from encephalon.core.status import from_rpc_error
from encephalon.discovery import resolve
from encephalon.local.training.kept import OVER
from encephalon.state import KeyValue
from encephalon.training.runs import INSTANCES

__all__ = ["ask_to_stop", "controllers", "living", "watched"]

LOG = structlog.get_logger(__name__)
SERVICE: Final = "/encephalon.api.training.v1.TrainingService"
RETRY_S: Final = 0.2
CALL_S: Final = 2.5
SILENCE_S: Final = 5.0
"""A control node tells something every second; one that is silent for so long is frozen, or another one is there."""


async def controllers(store: KeyValue, namespace: str, run: str) -> list[str]:
    """Addresses of control nodes that are announced: none, one, or also one that was killed a moment ago."""
    found = await resolve(store, namespace, INSTANCES + run, "controller")
    return [instance.address for instance in found]


async def watched(
    store: KeyValue, namespace: str, run: str, over: Callable[[], bool] = lambda: False
) -> AsyncGenerator[RunStatus, None]:
    """Every status that a control node tells, also of the next one when one is lost; ends when `over()` says so, or
    when a control node has told the end of the run.
    """
    while not over():
        for address in await addresses(store, namespace, run):
            try:
                async with aclosing(told(address, run)) as statuses:
                    async for status in statuses:
                        yield status
                        if status.state in OVER:
                            return
            except EncephalonError as error:
                LOG.debug("a control node cannot be watched", address=address, cause=error.message)
        await asyncio.sleep(RETRY_S)


async def living(store: KeyValue, namespace: str, run: str) -> RunStatus | None:
    """How the run goes now; None when no control node answers."""
    for address in await controllers(store, namespace, run):
        try:
            async with aclosing(told(address, run, silence_s=CALL_S)) as statuses:
                async for status in statuses:
                    return status
        except EncephalonError as error:
            LOG.debug("a control node does not answer", address=address, cause=error.message)
    return None


async def ask_to_stop(store: KeyValue, namespace: str, run: str) -> bool:
    """Whether a control node was told to end the run at its next step."""
    for address in await addresses(store, namespace, run):
        async with grpc.aio.insecure_channel(address) as channel:
            stop = channel.unary_unary(
                f"{SERVICE}/Stop",
                request_serializer=StopRequest.SerializeToString,
                response_deserializer=StopResponse.FromString,
            )
            try:
                await stop(StopRequest(run=run), timeout=CALL_S)
            except grpc.aio.AioRpcError as error:
                LOG.debug("a control node cannot be told to stop", address=address, cause=error.details())
            else:
                return True
    return False


async def addresses(store: KeyValue, namespace: str, run: str) -> list[str]:
    """None while the store is out of reach."""
    try:
        return await controllers(store, namespace, run)
    except Unavailable as error:
        LOG.debug("the store does not say where the control node is", cause=error.message)
        return []


async def told(address: str, run: str, *, silence_s: float = SILENCE_S) -> AsyncGenerator[RunStatus, None]:
    """What one control node tells, to its end. Unavailable when it is silent or gone."""
    async with grpc.aio.insecure_channel(address) as channel:
        watch = channel.unary_stream(
            f"{SERVICE}/Watch",
            request_serializer=WatchRequest.SerializeToString,
            response_deserializer=RunStatus.FromString,
        )
        call = watch(WatchRequest(run=run))
        try:
            while True:
                async with asyncio.timeout(silence_s):
                    status = await call.read()
                if not isinstance(status, RunStatus):  # the end of the stream
                    return
                if status.run != run:
                    raise InvalidInput(f"{address} told of run '{status.run[:100]}', asked was for '{run}'")
                yield status
        except TimeoutError:
            raise Unavailable(f"the control node on {address} is silent") from None
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        finally:
            call.cancel()
