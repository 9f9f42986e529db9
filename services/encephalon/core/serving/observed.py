"""Wraps every method of a service, once, when it is first called: errors become statuses, and calls are counted.

gRPC's own interceptors do the same per call and cost more than the call itself; latencies here are counted in tens of
microseconds.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from encephalon.core import logs, status
from encephalon.core.errors import EncephalonError
from encephalon.core.metrics import Counters, Gauge, Histogram, Histograms

__all__ = ["Observed"]

SECONDS = Histograms(
    "encephalon_rpc_seconds", "Time to answer a call (a stream: until it ended).", ["method", "status"]
)
IN_FLIGHT = Gauge("encephalon_rpc_in_flight", "Calls that are being answered.", ["method"])
BYTES = Counters("encephalon_rpc_bytes", "Bytes of messages.", ["method", "direction"])

NAMES = {code: kind.name for kind in grpc.StatusCode for code in (kind, kind.value[0])}
"""A context tells its status as a member or as a number."""

Serializer = Callable[[Any], Any]


class Method:
    """The figures of one method."""

    __slots__ = ("_by_status", "in_flight", "name", "received", "sent")

    def __init__(self, name: str) -> None:
        self.name = name
        self.in_flight = 0
        self.received = BYTES.labels(name, "received")
        self.sent = BYTES.labels(name, "sent")
        self._by_status: dict[str, Histogram] = {}
        IN_FLIGHT.show(name, read=lambda: self.in_flight)

    def begin(self) -> float:
        logs.rpc.set(self.name)
        self.in_flight += 1
        return time.monotonic()

    def end(self, began: float, code: str) -> None:
        self.in_flight -= 1
        histogram = self._by_status.get(code)
        if histogram is None:
            histogram = self._by_status[code] = SECONDS.labels(self.name, code)
        histogram.observe(time.monotonic() - began)

    def counting(self, handler: grpc.RpcMethodHandler[Any, Any]) -> tuple[Serializer, Serializer]:
        """The handler's deserializer and serializer, that count bytes."""
        read, write = handler.request_deserializer, handler.response_serializer
        received, sent = self.received, self.sent

        def deserialize(data: bytes) -> Any:
            received.value += len(data)
            return data if read is None else read(data)

        def serialize(message: Any) -> Any:
            data = message if write is None else write(message)
            sent.value += len(data)
            return data

        return deserialize, serialize


class Observed(grpc.GenericRpcHandler):
    """A service whose methods are wrapped."""

    def __init__(self, service: grpc.GenericRpcHandler) -> None:
        self._service = service
        self._methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = self._methods.get(details.method)
        if handler is None:
            found = self._service.service(details)
            if found is None:  # not remembered: anyone may ask for any name
                return None
            handler = self._methods[details.method] = wrap(found, Method(details.method.removeprefix("/")))
        return handler


def wrap(handler: grpc.RpcMethodHandler[Any, Any], method: Method) -> grpc.RpcMethodHandler[Any, Any]:
    if is_plain(handler):
        return grpc.unary_unary_rpc_method_handler(once(handler.unary_unary, method, plain=True))
    deserialize, serialize = method.counting(handler)
    match handler.request_streaming, handler.response_streaming:
        case False, False:
            return grpc.unary_unary_rpc_method_handler(once(handler.unary_unary, method), deserialize, serialize)
        case True, False:
            return grpc.stream_unary_rpc_method_handler(once(handler.stream_unary, method), deserialize, serialize)
        case False, True:
            return grpc.unary_stream_rpc_method_handler(many(handler.unary_stream, method), deserialize, serialize)
        case _:
            return grpc.stream_stream_rpc_method_handler(many(handler.stream_stream, method), deserialize, serialize)


def is_plain(handler: grpc.RpcMethodHandler[Any, Any]) -> bool:
    """Whether it is one message of bytes for another: these are counted without functions that gRPC has to call."""
    streams = handler.request_streaming or handler.response_streaming
    return not streams and handler.request_deserializer is None and handler.response_serializer is None


def many(behaviour: Any, method: Method) -> Any:
    """A method that answers a stream: an async generator, or a coroutine that writes to the context."""
    return generator(behaviour, method) if inspect.isasyncgenfunction(behaviour) else once(behaviour, method)


def once(behaviour: Any, method: Method, *, plain: bool = False) -> Any:
    """`plain`: the request and what comes back are bytes, which are counted."""

    async def call(request: Any, context: Any) -> Any:
        began = method.begin()
        code = "OK"
        try:
            if plain:
                method.received.value += len(request)
            answer = await behaviour(request, context)
            if plain:
                method.sent.value += len(answer)
            return answer
        except BaseException as error:  # noqa: BLE001 - `translate` raises it again
            code = code_of(error, context)
            await translate(error, context)
        finally:
            method.end(began, code)

    return call


def generator(behaviour: Any, method: Method) -> Any:
    async def call(request: Any, context: Any) -> AsyncIterator[Any]:
        began = method.begin()
        code = "OK"
        try:
            async for message in behaviour(request, context):
                yield message
        except BaseException as error:  # noqa: BLE001 - `translate` raises it again
            code = code_of(error, context)
            await translate(error, context)
        finally:
            method.end(began, code)

    return call


async def translate(error: BaseException, context: Any) -> None:
    """Ends the call with the status of the error; a cancelled or an already aborted call only ends."""
    if isinstance(error, Exception) and not isinstance(error, grpc.aio.AbortError):
        await status.abort(context, error)
    raise error


def code_of(error: BaseException, context: Any) -> str:
    if isinstance(error, EncephalonError):
        return error.status.name
    if isinstance(error, grpc.aio.AbortError):
        return NAMES.get(context.code(), "UNKNOWN")
    if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
        return "CANCELLED"
    return "INTERNAL"
