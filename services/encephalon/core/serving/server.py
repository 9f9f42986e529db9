"""A gRPC server as a block: bound when it is entered, drained when it is left."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import grpc
import grpc.aio

from encephalon.core.errors import FailedPrecondition
from encephalon.core.serving import addresses as places
from encephalon.core.serving.health import Health
from encephalon.core.serving.observed import Observed
from encephalon.core.serving.reflection import reflection_handlers

__all__ = ["Limits", "Server", "serving"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes."""

    max_message_bytes: int = 64 * 2**20
    """Larger messages are refused; a batch of 32 scenes is below 4 MiB, so 64 MiB leaves room for other brains."""
    grace_s: float = 5.0
    """How long calls in flight may take to end when the server stops."""
    keepalive_s: float = 10.0
    """A peer that is silent for so long is pinged, and is given up after as long again."""

    def __post_init__(self) -> None:
        if not 0 < self.max_message_bytes < 2**31:
            raise ValueError(f"max_message_bytes is {self.max_message_bytes}, expected 1 to 2^31 - 1")

    @property
    def options(self) -> list[tuple[str, int]]:
        milliseconds = round(self.keepalive_s * 1000)
        return [
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.so_reuseport", 0),  # two servers on one port would each get half of the calls
            ("grpc.keepalive_time_ms", milliseconds),
            ("grpc.keepalive_timeout_ms", milliseconds),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 1000),
        ]


class Server:
    """A running server. `addresses` are those it was told, with the real port; `ports` has 0 for a Unix socket."""

    def __init__(self, server: grpc.aio.Server, addresses: Sequence[str], health: Health, grace_s: float) -> None:
        self.addresses = tuple(addresses)
        self.ports = tuple(0 if places.unix_path(a) is not None else places.host_port(a)[1] for a in addresses)
        self.health = health
        self._server = server
        self._grace_s = grace_s

    def set_serving(self, serving: bool) -> None:
        """What the health service says."""
        self.health.set_serving(serving)

    async def stop(self, grace_s: float | None = None) -> None:
        """NOT_SERVING, no new calls, and at most `grace_s` for those in flight. Stopping twice is harmless."""
        self.health.stop()
        await self._server.stop(self._grace_s if grace_s is None else grace_s)
        for address in self.addresses:
            if (path := places.unix_path(address)) is not None:
                places.remove_socket(path)


@contextlib.asynccontextmanager
async def serving(
    services: Sequence[grpc.GenericRpcHandler],
    *,
    addresses: Sequence[str],
    limits: Limits | None = None,
    ready: Callable[[], bool] | None = None,
) -> AsyncIterator[Server]:
    """Serves `services`, health and reflection on all `addresses` ("host:port", port 0 chooses one; "unix:/path").

    Health says SERVING while `ready()` is true (None: from the start) and `Server.set_serving(False)` was not called.
    Raises `FailedPrecondition`, naming the address, when one cannot be used, and `InvalidInput` for one that is none.
    """
    limits = limits or Limits()
    names = [name for service in services if (name := service_name(service))]
    health = Health(names, ready)
    handlers = [*services, health.handler(), *reflection_handlers(names)]
    server = grpc.aio.server(options=limits.options)
    server.add_generic_rpc_handlers([Observed(handler) for handler in handlers])
    running = Server(server, [bind(server, address) for address in addresses], health, limits.grace_s)
    await server.start()
    try:
        yield running
    finally:
        await running.stop()


def bind(server: grpc.aio.Server, address: str) -> str:
    """The address with its real port."""
    places.check_free(address)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise FailedPrecondition(f"cannot listen on {address}: the port is in use", address=address) from error
    return address if places.unix_path(address) is not None else f"{address.rpartition(':')[0]}:{port}"


def service_name(service: grpc.GenericRpcHandler) -> str:
    return service.service_name() if isinstance(service, grpc.ServiceRpcHandler) else ""
