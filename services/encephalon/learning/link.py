"""The connection to one shard's data plane: streams of messages, with our errors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import grpc

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.core.errors import EncephalonError, Unavailable
from encephalon.core.status import INTERNAL_SENTENCE, from_rpc_error
from encephalon.learning.frames import MAX_MESSAGE

__all__ = ["SERVICE", "Incoming", "Link", "Outgoing"]

SERVICE: Final = "encephalon.api.parameter_server.v1.ParameterData"
UNARY_S: Final = 2.5
"""For an answer of a few bytes; README, order of time-outs."""
LONGEST_STREAM_S: Final = 24 * 3600.0
"""No call is without a deadline; a stream that stands still is ended long before, by whoever waits for it."""
OPTIONS: Final = [
    ("grpc.max_receive_message_length", 2 * MAX_MESSAGE),
    ("grpc.max_send_message_length", 2 * MAX_MESSAGE),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A shard that comes back is found at once; by itself gRPC would wait for a second, then longer.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 250),
    # Two clients of one process have a connection each, which they can lose without the other.
    ("grpc.use_local_subchannel_pool", 1),
]
BROKEN: Final = (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)
"""What gRPC itself says, depending on where a connection breaks."""


class Link:
    """Connects when it is first used, and again when it has to."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._channel = grpc.insecure_channel(address, options=OPTIONS)
        self._push: Any = self._channel.stream_unary(f"/{SERVICE}/Push")
        self._pull: Any = self._channel.unary_stream(f"/{SERVICE}/Pull")
        self._share: Any = self._channel.unary_stream(f"/{SERVICE}/Share")

    def push(self, messages: Iterator[bytes]) -> Outgoing:
        """Takes the messages in a thread of its own."""
        return Outgoing(self._push.future(messages, timeout=LONGEST_STREAM_S), self.address)

    def pull(self, request: pb.PullRequest) -> Incoming:
        return Incoming(self._pull(request.SerializeToString(), timeout=LONGEST_STREAM_S), self.address)

    def share(self, request: pb.ShareRequest) -> tuple[pb.ShareResponse, Incoming]:
        """The answer, and the call; the shard lets the memory go when that ends."""
        # The call lives as long as the sharing does, so it is the answer that has to come in time.
        call = Incoming(self._share(request.SerializeToString(), timeout=LONGEST_STREAM_S), self.address)
        return pb.ShareResponse.FromString(call.first(UNARY_S)), call

    def close(self) -> None:
        self._channel.close()


class Incoming:
    """A stream of messages. Raises what the shard says, or Unavailable when the stream breaks."""

    def __init__(self, call: Any, address: str) -> None:
        self._call = call
        self._address = address

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._call
        except grpc.RpcError as error:
            raise _said(error, self._address) from error

    def first(self, within_s: float) -> bytes:
        """The first message; Unavailable when it does not come in time."""
        late = threading.Timer(within_s, self._call.cancel)
        late.daemon = True
        late.start()
        try:
            for message in self:
                return message
            raise Unavailable(f"the shard at {self._address} ended the stream at once")
        finally:
            late.cancel()

    @property
    def alive(self) -> bool:
        return bool(self._call.is_active())

    def cancel(self) -> None:
        self._call.cancel()


class Outgoing:
    """A stream of messages that ends with one answer."""

    def __init__(self, call: Any, address: str) -> None:
        self._call = call
        self._address = address

    def when_over(self, told: Callable[[], None]) -> None:
        """Called once, from another thread, or at once when it is over already."""
        self._call.add_done_callback(lambda _: told())

    @property
    def over(self) -> bool:
        return bool(self._call.done())

    def receipt(self) -> pb.PushReceipt:
        """Of a stream that is over. Raises what the shard says, or Unavailable when the stream broke."""
        try:
            return pb.PushReceipt.FromString(self._call.result())
        except grpc.RpcError as error:
            raise _said(error, self._address) from error
        except grpc.FutureCancelledError as error:
            raise Unavailable(f"the stream to {self._address} was broken off") from error

    def cancel(self) -> None:
        self._call.cancel()


def _said(error: grpc.RpcError, address: str) -> EncephalonError:
    known = from_rpc_error(error)
    if known.status in BROKEN and known.message != INTERNAL_SENTENCE:
        return Unavailable(f"the stream to the shard at {address} broke: {known.message}")
    return known
