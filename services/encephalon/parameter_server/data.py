"""The data plane of a shard: contributions come, parameters go, as streams of frames or through shared memory.

Its address is not that of `service`, so that orders never wait behind gradients.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from itertools import count, islice
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError, Message

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.core.errors import DeadlineExceeded, FailedPrecondition, InvalidInput, Overloaded, Unavailable
from encephalon.core.serving import Limits
from encephalon.learning.compression import decode, dense
from encephalon.learning.frames import (
    ABSENT,
    LAST,
    MAX_MESSAGE,
    MAX_PAYLOAD,
    SHARED,
    Batch,
    Codec,
    Frame,
    Key,
    Place,
    frames,
)
from encephalon.learning.link import SERVICE
from encephalon.parameter_server.contribution import Contribution
from encephalon.parameter_server.shared import Gradients, SharedParameters
from encephalon.parameter_server.store import Store

__all__ = ["DATA_LIMITS", "ParameterData"]

DATA_LIMITS: Final = Limits(max_message_bytes=2 * MAX_MESSAGE, grace_s=0.5)
"""For the server that has this service. A stream that is broken off begins again elsewhere, so there is no waiting."""
WAIT_S: Final = 10.0
"""For a version; README, order of time-outs."""
AHEAD: Final = 2
"""Messages that are made at once; twice as many are in memory for each pull."""
MOST_SEGMENTS: Final = 1024
"""Two for each worker of the largest run, and a descriptor is not kept open for any."""


class ParameterData:
    """Serves whatever store is current. `current` raises FailedPrecondition while there is none."""

    def __init__(self, current: Callable[[], Store], *, wait_s: float = WAIT_S) -> None:
        self.received_bytes = 0
        """Of messages and of what was taken from shared memory."""
        self.sent_bytes = 0
        """Of messages; what workers read from shared memory is not seen here."""
        self._current = current
        self._wait_s = wait_s
        self._segments: dict[int, Gradients] = {}
        self._numbers = count(1)
        self._closed = asyncio.Event()

    def handler(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Push": grpc.stream_unary_rpc_method_handler(self.Push),
                "Pull": grpc.unary_stream_rpc_method_handler(self.Pull),
                "Share": grpc.unary_stream_rpc_method_handler(self.Share),
            },
        )

    def close(self) -> None:
        """Ends the calls that would last as long as their clients; before the server stops."""
        self._closed.set()

    async def Push(  # noqa: N802 - the method's name on the wire
        self, messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]
    ) -> bytes:
        stream = _Incoming(self._current(), self._segments)
        async for message in messages:
            self.received_bytes += len(message) + stream.take(message)
        return pb.PushReceipt(frames=stream.frames).SerializeToString()

    async def Pull(  # noqa: N802 - the method's name on the wire
        self, message: bytes, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[bytes]:
        request = _parsed(pb.PullRequest, message)
        store = self._current()
        _check(request, store)
        await self._reached(store, request)
        messages = _shared(request, store) if request.shared else _copied(request, store)
        async for part in _ahead(messages):
            self.sent_bytes += len(part)
            yield part

    async def Share(  # noqa: N802 - the method's name on the wire
        self, message: bytes, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[bytes]:
        request = _parsed(pb.ShareRequest, message)
        store = self._current()
        _check_generation(request.generation, store)
        if not isinstance(store.memory, SharedParameters):
            raise FailedPrecondition("the shard shares no memory; push and pull over the socket")
        response = pb.ShareResponse(parameters=store.memory.described())
        if not request.HasField("gradients"):
            yield response.SerializeToString()
            return
        if len(self._segments) >= MOST_SEGMENTS:
            raise Overloaded(f"{MOST_SEGMENTS} segments of memory are shared, which is the most")
        gradients = Gradients(request.gradients)
        response.segment = next(self._numbers)
        self._segments[response.segment] = gradients
        try:
            yield response.SerializeToString()
            await self._closed.wait()
        finally:
            del self._segments[response.segment]

    async def _reached(self, store: Store, request: pb.PullRequest) -> None:
        try:
            async with asyncio.timeout(self._wait_s):
                await store.reached(request.generation, request.version)
        except TimeoutError:
            raise DeadlineExceeded(
                f"version {request.version} was not reached in {self._wait_s:g} s, shard {store.shard} is at "
                f"{store.version}"
            ) from None


class _Incoming:
    """One stream of a push: (a part of) one contribution."""

    def __init__(self, store: Store, segments: dict[int, Gradients]) -> None:
        self.frames = 0
        self._store = store
        self._sizes = {number: store.places.size(number) for number in store.slices}
        self._segments = segments
        self._key: Key | None = None
        self._contribution: Contribution | None = None
        self._covered: dict[int, int] = {}

    def take(self, message: bytes) -> int:
        """Bytes that were taken from shared memory. Raises as `frames` and `Store.contribution`."""
        shared = 0
        for frame in frames(message, self._sizes):
            self.frames += 1
            contribution = self._of(frame.key)
            if contribution.has(frame.slice):
                contribution.check()  # it comes again, after a stream that broke
            elif frame.flags & ABSENT:
                contribution.absent(frame.slice)
            elif frame.flags & SHARED:
                shared += self._lend(contribution, frame)
            else:
                self._fill(contribution, frame)
        return shared

    def _of(self, key: Key) -> Contribution:
        if self._contribution is None or key != self._key:
            if self._key is not None:
                raise InvalidInput(f"a stream of {self._key} goes on with {key}; a stream has one contribution")
            self._contribution = self._store.contribution(key.generation, key.number, key.rank, key.attempt)
            self._key = key
        return self._contribution

    def _fill(self, contribution: Contribution, frame: Frame) -> None:
        number, covered = frame.slice, self._covered.get(frame.slice, 0)
        if frame.offset != covered:
            raise InvalidInput(
                f"slice {number} goes on at element {frame.offset}, expected {covered}; send its frames in order",
                slice=number,
            )
        into = contribution.buffer(number)[covered : covered + frame.count]
        decode(frame.codec, frame.payload, into)
        self._covered[number] = covered + frame.count
        if frame.flags & LAST:
            contribution.filled(number)

    def _lend(self, contribution: Contribution, frame: Frame) -> int:
        place = Place.of(frame.payload)
        gradients = self._segments.get(place.segment)
        if gradients is None:
            raise Unavailable(f"memory {place.segment} is not shared any more; send over the socket")
        values = gradients.values(place.offset, frame.count)
        if gradients.hold(place.use):
            contribution.when_released(partial(gradients.release, place.use))
        contribution.lend(frame.slice, values)
        contribution.filled(frame.slice)
        return values.nbytes


def _check(request: pb.PullRequest, store: Store) -> None:
    _check_generation(request.generation, store)
    wanted = list(request.slices)
    if not wanted or len(set(wanted)) != len(wanted):
        raise InvalidInput(f"{len(wanted)} slices were asked for, expected some, each once")
    for number in wanted:
        store.places.size(number)
    if request.wire not in ("fp32", "bf16"):
        raise InvalidInput(f"parameters were asked for as '{request.wire[:20]}', expected fp32 or bf16")
    if request.shared and (request.wire != "fp32" or not isinstance(store.memory, SharedParameters)):
        raise InvalidInput("parameters in shared memory are float32, and this shard must share its memory")


def _check_generation(generation: int, store: Store) -> None:
    if generation != store.generation:
        raise FailedPrecondition(
            f"generation {generation} is over, the shard has loaded {store.generation}; ask for the shards again",
            generation=store.generation,
        )


def _shared(request: pb.PullRequest, store: Store) -> Iterator[bytes]:
    """Where the slices lie. Whoever reads them there sees their version himself."""
    memory, batch = store.memory, Batch()
    if not isinstance(memory, SharedParameters):
        return
    for number in request.slices:
        version, values = store.parameters(number)
        place = Place(0, 0, memory.offset(values)).packed()
        key = Key(store.generation, version)
        frame = Frame(key, number, 0, len(values), Codec.FP32, LAST | SHARED, memoryview(place))
        if not batch.fits(frame):
            yield batch.take()
        batch.add(frame)
    yield batch.take()


def _copied(request: pb.PullRequest, store: Store) -> Iterator[bytes]:
    """Each message is made while nothing is applied, so a frame never mixes versions."""
    for group in _groups(request, store):
        batch = Batch()
        with store.reading():
            for number, start, stop, codec in group:
                version, values = store.parameters(number)
                key = Key(store.generation, version)
                (piece,) = dense(values[start:stop], codec)
                last = LAST if stop == len(values) else 0
                batch.add(Frame(key, number, start, stop - start, codec, last, piece.payload))
            message = batch.take()
        yield message


async def _ahead(messages: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Made beside the event loop, because reading waits while an update is applied; some at a time, for a hop to
    another thread costs as much as a message; and the next ones while these are sent."""

    def some() -> list[bytes]:
        return list(islice(messages, AHEAD))

    making = asyncio.create_task(asyncio.to_thread(some))
    try:
        while parts := await making:
            making = asyncio.create_task(asyncio.to_thread(some))
            for part in parts:
                yield part
    finally:
        making.cancel()


def _groups(request: pb.PullRequest, store: Store) -> Iterator[list[tuple[int, int, int, Codec]]]:
    """Slice, first element, the one after the last, and codec, of what shares a message."""
    group: list[tuple[int, int, int, Codec]] = []
    free = MAX_PAYLOAD
    for number in request.slices:
        # What is no gradient step but a value (running means) is never rounded.
        codec = Codec.BF16 if request.wire == "bf16" and store.places.learned(number) else Codec.FP32
        width, size = (2 if codec is Codec.BF16 else 4), store.places.size(number)
        for start in range(0, size, MAX_PAYLOAD // width):
            stop = min(start + MAX_PAYLOAD // width, size)
            # A frame costs a header, and many small ones must not outgrow the message.
            cost = (stop - start) * width + (64 if group else 0)
            if group and cost > free:
                yield group
                group, free = [], MAX_PAYLOAD
            group.append((number, start, stop, codec))
            free -= cost
    yield group


def _parsed(kind: type[Any], message: bytes) -> Any:
    try:
        parsed: Message = kind.FromString(message)
    except DecodeError:
        raise InvalidInput(f"the message is no {kind.__name__}") from None
    return parsed
