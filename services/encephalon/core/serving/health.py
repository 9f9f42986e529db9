"""`grpc.health.v1`: says SERVING exactly while the domain can answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from encephalon.core.errors import NotFound

__all__ = ["Health"]

NAME = "grpc.health.v1.Health"
RECHECK_S = 0.1
"""How often a watcher looks at `ready` again: changes of readiness need no wiring, and are seen ten times a second."""

Request = health_pb2.HealthCheckRequest
Response = health_pb2.HealthCheckResponse


class Health:
    """SERVING while `set_serving(True)` holds and `ready()` says so, for "" (the server) and each of `services`."""

    def __init__(self, services: Collection[str] = (), ready: Callable[[], bool] | None = None) -> None:
        self._services = {"", NAME, *services}
        self._ready = ready
        self._serving = True
        self._stopped = asyncio.Event()
        self._changed = asyncio.Event()

    @property
    def serving(self) -> bool:
        return self._serving and (self._ready is None or self._ready())

    def set_serving(self, serving: bool) -> None:
        """Takes effect at once, also for those who watch. What was stopped never serves again."""
        self._serving = serving and not self._stopped.is_set()
        self._changed.set()
        self._changed = asyncio.Event()

    def stop(self) -> None:
        """NOT_SERVING from now on, and the end of every Watch."""
        self._stopped.set()
        self.set_serving(False)

    def handler(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            NAME,
            {
                "Check": grpc.unary_unary_rpc_method_handler(
                    self.check,
                    request_deserializer=Request.FromString,
                    response_serializer=Response.SerializeToString,
                ),
                "Watch": grpc.unary_stream_rpc_method_handler(
                    self.watch,
                    request_deserializer=Request.FromString,
                    response_serializer=Response.SerializeToString,
                ),
            },
        )

    async def check(self, request: Any, context: object) -> Any:
        if request.service not in self._services:
            raise NotFound(f"there is no service '{request.service[:100]}' here", service=request.service[:100])
        return self._status(request.service)

    async def watch(self, request: Any, context: object) -> AsyncIterator[Any]:
        last: int | None = None
        while True:
            status = self._status(request.service)
            if status.status != last:
                last = status.status
                yield status
            if self._stopped.is_set():
                return
            await self._change()

    async def _change(self) -> None:
        try:
            async with asyncio.timeout(RECHECK_S):
                await self._changed.wait()
        except TimeoutError:
            return

    def _status(self, service: str) -> Any:
        if service not in self._services:
            return Response(status=Response.SERVICE_UNKNOWN)
        return Response(status=Response.SERVING if self.serving else Response.NOT_SERVING)
