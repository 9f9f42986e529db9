"""One channel to etcd, with a deadline on every call and our errors for its own.

The stubs are those that aetcd generates. Its client is not used: its watches end with the connection and do not say
where they stopped, a watch on a compacted revision waits for ever, and its calls have no deadline unless each is given
one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc
from aetcd import rpc
from aetcd.rpc import rpc_pb2

from encephalon.core.errors import (
    Denied,
    EncephalonError,
    FailedPrecondition,
    Internal,
    InvalidInput,
    NotFound,
    Overloaded,
    Unavailable,
)
from encephalon.state.key_value import Entry

__all__ = ["IDENTITY", "Connection", "entries_of", "entry_of", "message"]

_OPTIONS: Final = [
    # After a restart of etcd a region must be back well within its lease of 5 s.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Pings find a server that is frozen or behind a dead link; etcd hangs up on clients that ping more often than every
    # 5 s.
    ("grpc.keepalive_time_ms", 6000),
    ("grpc.keepalive_timeout_ms", 3000),
    ("grpc.max_receive_message_length", 32 * 1024 * 1024),
    # Two stores opened by one process share nothing, so that closing one leaves the other alone.
    ("grpc.use_local_subchannel_pool", 1),
]
# Tells whether the store is still the one it was. After a member has lost its data, its cluster number may be the same
# and its revision may have overtaken ours, so neither shows it.
IDENTITY: Final = b"\x00encephalon/identity"
# A member cut off from the majority must end its watches instead of falling silent.
_METADATA: Final = (("hasleader", "true"),)


def message(name: str, **fields: object) -> Any:
    """A message of etcd's API; the generated module has no types."""
    return getattr(rpc_pb2, name)(**fields)


class Connection:
    def __init__(self, address: str, deadline_s: float) -> None:
        self.address = address
        self.deadline_s = deadline_s
        self.channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self.kv, self.leases, self.watches = (
            rpc.KVStub(self.channel),
            rpc.LeaseStub(self.channel),
            rpc.WatchStub(self.channel),
        )

    async def call(self, method: Callable[..., Awaitable[Any]], request: object, *, patient: bool = True) -> Any:
        """One answer within the deadline; `patient` waits that long for a server that is out of reach to come back."""
        try:
            return await method(request, timeout=self.deadline_s, wait_for_ready=patient, metadata=_METADATA)
        except grpc.aio.AioRpcError as error:
            raise self.translated(error) from error

    @contextlib.asynccontextmanager
    async def stream(self, method: Callable[..., Any], request: object) -> AsyncIterator[tuple[Any, Any]]:
        """A stream each way: the call, for `read`, and the answer to `request`, which must come within the deadline."""
        call = method(wait_for_ready=True, metadata=_METADATA)
        try:
            async with asyncio.timeout(self.deadline_s):
                await call.write(request)
                first = await call.read()
            if first is grpc.aio.EOF:
                raise Unavailable(f"etcd at {self.address} ended a stream", address=self.address)
            yield call, first
        except TimeoutError as error:
            raise self.silent() from error
        except grpc.aio.AioRpcError as error:
            raise self.translated(error) from error
        finally:
            call.cancel()

    async def exchange(self, method: Callable[..., Any], request: object) -> Any:
        """One question and one answer of a stream."""
        async with self.stream(method, request) as (_, answer):
            return answer

    def silent(self) -> Unavailable:
        return Unavailable(f"etcd at {self.address} did not answer within {self.deadline_s:g} s", address=self.address)

    def translated(self, error: grpc.aio.AioRpcError) -> EncephalonError:
        code, details = error.code(), error.details() or ""
        match code:
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return self.silent()
            case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
                return Unavailable(f"etcd at {self.address} is out of reach: {details}", address=self.address)
            case grpc.StatusCode.RESOURCE_EXHAUSTED:
                return Overloaded(f"etcd at {self.address} refuses: {details}", address=self.address)
            case grpc.StatusCode.PERMISSION_DENIED | grpc.StatusCode.UNAUTHENTICATED:
                return Denied(f"etcd at {self.address} denies access: {details}", address=self.address)
            case grpc.StatusCode.NOT_FOUND:
                return NotFound(details)
            case grpc.StatusCode.OUT_OF_RANGE:
                return FailedPrecondition(f"the history of etcd at {self.address} does not reach there: {details}")
            case grpc.StatusCode.INVALID_ARGUMENT:
                return InvalidInput(f"etcd at {self.address} refuses: {details}", address=self.address)
        return Internal(f"etcd at {self.address} failed with {code.name}: {details}", address=self.address)

    async def close(self) -> None:
        await self.channel.close()


def entry_of(found: Any) -> Entry | None:
    """None for what is not ours to see: our own mark, and keys of other programs that are not text."""
    if found.key == IDENTITY:
        return None
    try:
        return Entry(found.key.decode(), bytes(found.value), int(found.mod_revision))
    except UnicodeDecodeError:
        return None


def entries_of(answer: Any) -> list[Entry]:
    return [entry for found in answer.kvs if (entry := entry_of(found)) is not None]
