"""The client's side of one ModelStreamInfer: many callers share it, each waits for its own answer."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from itertools import count
from types import TracebackType
from typing import Any, Self

import grpc

from encephalon.core.errors import DeadlineExceeded, EncephalonError, Internal, InvalidInput, Unavailable
from encephalon.core.inference.lending import Lender
from encephalon.core.inference.link import Link
from encephalon.core.inference.names import CANCEL
from encephalon.core.status import error_from_stream, from_rpc_error
from encephalon.core.wire import (
    InferRequest,
    InferResponse,
    Parameter,
    StreamError,
    decode_stream_response,
    encode_request,
    peek_stream_id,
)

__all__ = ["InferStream"]

Found = InferResponse | StreamError | Internal
Carrier = grpc.aio.StreamStreamCall[bytes, bytes] | Link

LOG = logging.getLogger(__name__)


class InferStream:
    """Ids are its own and unique; callers get theirs back. `InferenceClient.open_stream` makes one.

    When the stream breaks, every caller fails with Unavailable at once and so does every later call: open another.
    """

    def __init__(
        self,
        call: Carrier,
        *,
        address: str,
        max_in_flight: int,
        max_message_bytes: int,
        cancels: bool,
        lender: Lender | None = None,
    ) -> None:
        self._call = call
        self._address = address
        self._max_message_bytes = max_message_bytes
        self._cancels = cancels
        self._lender = lender
        self._ids = count(1)
        self._slots = asyncio.Semaphore(max_in_flight)
        self._waiting: dict[str, asyncio.Future[InferResponse]] = {}
        self._outbox: deque[bytes] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._broken: EncephalonError | None = None
        self._link = call if isinstance(call, Link) else None
        if self._link is not None:
            # Answers then need no reader, which learns only of the end.
            self._link.receiver = self._take
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._guarded(self._read()), name=f"inference stream {address} reader"),
            loop.create_task(self._guarded(self._write()), name=f"inference stream {address} writer"),
        ]

    @property
    def broken(self) -> EncephalonError | None:
        """Why the stream can carry no more requests; None while it can."""
        return self._broken

    @property
    def in_flight(self) -> int:
        """Requests that wait for their answers."""
        return len(self._waiting)

    async def infer(self, request: InferRequest, timeout_s: float) -> InferResponse:
        """Errors are those of `core.errors`. Cancelling the awaiting task stops the work at the server, if it can."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        await self._enter(deadline, timeout_s)
        try:
            return await self._exchange(request, deadline, timeout_s)
        finally:
            self._slots.release()

    def submit(self, request: InferRequest, timeout_s: float) -> asyncio.Future[InferResponse]:
        """As `infer`, without a task and a timer: for callers that keep the time and the number in flight themselves.

        `timeout_s` is what the server is told. Never raises: failures are in the future. Cancelling it stops the work
        at the server, if it can. The answer has the stream's own id.
        """
        loop = asyncio.get_running_loop()
        if self._lender is not None and not self._lender.has_room_for(request):
            # It must first tell the server of more memory.
            return loop.create_task(self.infer(request, timeout_s))
        answer: asyncio.Future[InferResponse] = loop.create_future()
        id = str(next(self._ids))
        try:
            message = self._encoded_now(own(request, id, timeout_s))
        except EncephalonError as error:
            answer.set_exception(error)
            return answer
        self._waiting[id] = answer

        def left(_: object) -> None:
            # Still there means that no answer came: the caller went away.
            if self._waiting.pop(id, None) is not None:
                self._stop(request, id)

        answer.add_done_callback(left)
        self._send(message)
        return answer

    async def close(self) -> None:
        """Ends the stream; whoever still waits fails with Unavailable. Closing twice is harmless."""
        self._fail(Unavailable(f"the stream to {self._address} was closed", address=self._address))
        self._call.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _enter(self, deadline: float, timeout_s: float) -> None:
        # asyncio.timeout costs as much as the rest of this method, so only those who must wait pay for it.
        if not self._slots.locked():
            await self._slots.acquire()
            return
        try:
            async with asyncio.timeout_at(deadline):
                await self._slots.acquire()
        except TimeoutError:
            raise self._late(timeout_s) from None

    async def _exchange(self, request: InferRequest, deadline: float, timeout_s: float) -> InferResponse:
        if self._broken is not None:
            raise copy_of(self._broken)
        loop = asyncio.get_running_loop()
        id = str(next(self._ids))
        message = await self._encoded(own(request, id, deadline - loop.time()))
        answer: asyncio.Future[InferResponse] = loop.create_future()
        self._waiting[id] = answer
        timer = loop.call_at(deadline, self._expire, answer, timeout_s)
        self._send(message)
        try:
            response = await answer
        finally:
            timer.cancel()
            # Still there means that no answer came: the caller went away or its time is up.
            if self._waiting.pop(id, None) is not None:
                self._stop(request, id)
        response.id = request.id
        return response

    async def _encoded(self, request: InferRequest) -> bytes:
        if self._lender is not None:
            await self._lender.make_room_for(request)
        return self._encoded_now(request)

    def _encoded_now(self, request: InferRequest) -> bytes:
        if self._broken is not None:
            raise copy_of(self._broken)
        if self._lender is None:
            return encode_within(request, self._max_message_bytes)
        try:
            return encode_within(self._lender.lend(request), self._max_message_bytes)
        except BaseException:
            self._lender.settle(request.id, None)
            raise

    def _expire(self, answer: asyncio.Future[InferResponse], timeout_s: float) -> None:
        if not answer.done():
            answer.set_exception(self._late(timeout_s))

    def _late(self, timeout_s: float) -> DeadlineExceeded:
        return DeadlineExceeded(f"{self._address} did not answer within {timeout_s:.3f} s", address=self._address)

    def _stop(self, request: InferRequest, id: str) -> None:
        if self._cancels and self._broken is None:
            self._send(encode_request(InferRequest(request.model_name, id=id, parameters={CANCEL: True})))

    def _send(self, message: bytes) -> None:
        if self._link is not None and not self._outbox and self._link.write_now(message):
            return
        self._outbox.append(message)
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _write(self) -> None:
        """A task of its own, because cancelling a caller in the middle of a write would end the whole call."""
        loop = asyncio.get_running_loop()
        while True:
            while self._outbox:
                await self._call.write(self._outbox.popleft())
            self._wake = loop.create_future()
            await self._wake

    async def _read(self) -> None:
        while (message := await self._call.read()) is not grpc.aio.EOF:
            self._receive(message)
        raise Unavailable(f"{self._address} ended the stream", address=self._address)

    def _take(self, message: bytes) -> bool:
        self._receive(message)
        return True

    def _receive(self, message: Any) -> None:
        try:
            found: Found = decode_stream_response(message)
            id = found.id  # type: ignore[union-attr]
        except InvalidInput as error:
            id = peek_stream_id(message)
            found = self._malformed(error)
        if self._lender is not None:
            found = self._settled(self._lender, id, found)
        answer = self._waiting.pop(id, None)
        if answer is None or answer.done():
            return
        if isinstance(found, InferResponse):
            answer.set_result(found)
        else:
            answer.set_exception(found if isinstance(found, Internal) else error_from_stream(found))

    def _settled(self, lender: Lender, id: str, found: Found) -> Found:
        try:
            lender.settle(id, found if isinstance(found, InferResponse) else None)
        except (InvalidInput, Internal) as error:
            return self._malformed(error)
        return found

    def _malformed(self, error: EncephalonError) -> Internal:
        return Internal(f"{self._address} sent a malformed answer: {error.message}", address=self._address)

    async def _guarded(self, work: Any) -> None:
        """Whatever ends the reader or the writer ends the stream, and those who wait learn why at once."""
        try:
            await work
        except EncephalonError as error:
            self._fail(error)
        except grpc.RpcError as error:
            self._fail(self._translated(error))
        except asyncio.CancelledError:
            self._fail(Unavailable(f"the stream to {self._address} was cancelled", address=self._address))
            raise
        except Exception as error:
            LOG.warning("the stream broke", extra={"address": self._address}, exc_info=error)
            self._fail(Unavailable(f"the stream to {self._address} broke: {error}", address=self._address))

    def _translated(self, error: grpc.RpcError) -> EncephalonError:
        """What the server said of itself stays; a transport that broke is Unavailable, whatever it calls it."""
        known = from_rpc_error(error, address=self._address)
        if isinstance(known, Internal) or known.status in (
            grpc.StatusCode.CANCELLED,
            grpc.StatusCode.DEADLINE_EXCEEDED,
        ):
            return Unavailable(f"the stream to {self._address} broke: {known.message}", address=self._address)
        return known

    def _fail(self, error: EncephalonError) -> None:
        if self._broken is not None:
            return
        self._broken = error
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            if not answer.done():
                answer.set_exception(copy_of(error))
        self._call.cancel()


def own(request: InferRequest, id: str, remaining_s: float) -> InferRequest:
    """The request as the stream sends it: with the stream's id, and with the time that is left."""
    parameters = with_timeout(request.parameters, remaining_s)
    return InferRequest(
        request.model_name,
        request.model_version,
        id,
        parameters,
        request.inputs,
        request.outputs,
        request.shared_inputs,
    )


def with_timeout(parameters: dict[str, Parameter], remaining_s: float) -> dict[str, Parameter]:
    """The server learns how much time is left, since a stream's requests have no deadline of their own in gRPC."""
    # 0 would mean no limit.
    left = max(1, int(remaining_s * 1e6))
    wanted = parameters.get("timeout")
    if isinstance(wanted, int) and 0 < wanted < left:
        return parameters
    return {**parameters, "timeout": left}


def encode_within(request: InferRequest, limit: int) -> bytes:
    """InvalidInput for more than `limit` bytes, which the transport would refuse by ending the whole stream."""
    message = encode_request(request)
    if len(message) > limit:
        raise InvalidInput(
            f"the request has {len(message)} bytes, expected at most {limit}; send fewer rows",
            got=len(message),
            expected=limit,
        )
    return message


def copy_of(error: EncephalonError) -> EncephalonError:
    """Each caller raises its own: a shared exception would collect everybody's traceback."""
    copied = type(error)(error.message)
    copied.details = dict(error.details)
    return copied
