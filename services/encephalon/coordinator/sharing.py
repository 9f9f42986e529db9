"""Requests that wait for the same replica share one message: a message costs far more than the rows in it.

A few requests never wait. When many are on their way through the coordinator, more for the same replica are about to
come: requests gather until all of those on their way are there, or for a time that grows with their number.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from encephalon.core.errors import EncephalonError, Internal, Overloaded, Unavailable
from encephalon.core.wire import InferRequest, InferResponse, Tensor

__all__ = ["Gathering", "Send"]

Send = Callable[[InferRequest, float], asyncio.Future[InferResponse]]

FEW = 4
# About what it takes to bring one request through a brain on one core, so that those on their way come in this time.
# Measured with 32 callers: half of it makes more messages for as many answers, 1.6 times of it a fifth fewer answers.
HOLD_PER_REQUEST_S = 0.00025
HOLD_S = 0.008
# Above this a tensor's bytes cost more than its message.
MAX_SHARED_BYTES = 64 * 1024
# Failures that the messages would meet one by one just the same.
COMMON = (Unavailable, Overloaded)
# The only parameter that requests of one message may have; it must be the same.
PRIORITY = "priority"


@dataclass(slots=True, eq=False)
class Member:
    """One request, and its rows in the message that it shares."""

    request: InferRequest
    deadline: float
    rows: int
    future: asyncio.Future[InferResponse]


class Gathering:
    """Sends through `send`, in messages of at most `max_rows` rows; `pressure` says how many requests there are."""

    def __init__(self, send: Send, max_rows: int, pressure: Callable[[], int]) -> None:
        self._send = send
        self._max_rows = max_rows
        self._pressure = pressure
        self._loop = asyncio.get_running_loop()
        self._gathered: list[Member] = []
        self._timer: asyncio.TimerHandle | None = None
        self._hurries = False

    def send(self, request: InferRequest, deadline: float) -> asyncio.Future[InferResponse]:
        pressure = self._pressure()
        if pressure < FEW and not self._gathered:
            return self._send(request, deadline)
        rows = shareable_rows(request)
        if not rows or rows >= self._max_rows:
            return self._send(request, deadline)
        member = Member(request, deadline, rows, self._loop.create_future())
        self._gathered.append(member)
        if len(self._gathered) >= min(pressure, self._max_rows):
            self._hurry()
        elif self._timer is None and not self._hurries:
            self._timer = self._loop.call_later(min(HOLD_S, pressure * HOLD_PER_REQUEST_S), self._flush)
        return member.future

    def _hurry(self) -> None:
        """Not now but at the end of the turn: those that come in the same one share."""
        if not self._hurries:
            self._hurries = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._hurries = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        gathered, self._gathered = self._gathered, []
        if len(gathered) == 1:
            self._send_alone(gathered[0])
            return
        for members in self._groups(gathered):
            if len(members) == 1:
                self._send_alone(members[0])
            else:
                self._send_shared(members)

    def _groups(self, gathered: Sequence[Member]) -> list[list[Member]]:
        now = self._loop.time()
        open_groups: dict[object, tuple[list[Member], int]] = {}
        groups: list[list[Member]] = []
        for member in gathered:
            if member.future.done():
                continue
            key = likeness(member, now)
            members, rows = open_groups.get(key, (None, 0))
            if members is None or rows + member.rows > self._max_rows:
                members, rows = [], 0
                groups.append(members)
            members.append(member)
            open_groups[key] = (members, rows + member.rows)
        return groups

    def _send_alone(self, member: Member) -> None:
        if member.future.done():
            return
        sent = self._send(member.request, member.deadline)

        def told(sent: asyncio.Future[InferResponse]) -> None:
            member.future.remove_done_callback(left)
            pass_on(sent, member.future)

        def left(_: object) -> None:
            sent.cancel()

        sent.add_done_callback(told)
        member.future.add_done_callback(left)

    def _send_shared(self, members: list[Member]) -> None:
        deadline = min(member.deadline for member in members)
        sent = self._send(joined([member.request for member in members]), deadline)
        waiting = len(members)

        def told(sent: asyncio.Future[InferResponse]) -> None:
            for member in members:
                member.future.remove_done_callback(left)
            self._share_out(members, sent)

        def left(_: object) -> None:
            nonlocal waiting
            waiting -= 1
            if not waiting:
                sent.cancel()

        sent.add_done_callback(told)
        for member in members:
            member.future.add_done_callback(left)

    def _share_out(self, members: Sequence[Member], sent: asyncio.Future[InferResponse]) -> None:
        error = Unavailable("the connection was closed") if sent.cancelled() else sent.exception()
        parts: list[InferResponse] = []
        if error is None:
            try:
                parts = split(sent.result(), [member.rows for member in members])
            except EncephalonError as mistake:
                error = mistake
        if isinstance(error, COMMON):
            for member in members:
                if not member.future.done():
                    member.future.set_exception(type(error)(error.message, **error.details))
        elif error is not None:
            # One of them may have spoilt it for the others.
            for member in members:
                self._send_alone(member)
        else:
            for member, part in zip(members, parts, strict=True):
                if not member.future.done():
                    part.id = member.request.id
                    member.future.set_result(part)


def shareable_rows(request: InferRequest) -> int:
    """The rows of the request; 0 when it must have a message of its own."""
    parameters = request.parameters
    if parameters and any(name != PRIORITY for name in parameters):
        return 0
    rows = 0
    for tensor in request.inputs:
        if not tensor.shape or tensor.datatype == "BYTES" or tensor.nbytes > MAX_SHARED_BYTES:
            return 0
        rows = rows or tensor.shape[0]
        if tensor.shape[0] != rows:
            return 0
    return rows


def likeness(member: Member, now: float) -> object:
    """What requests must have in common to share: inputs, shapes, priority, and about as much time."""
    request = member.request
    inputs = tuple([(tensor.name, tensor.datatype, tensor.shape[1:]) for tensor in request.inputs])
    magnitude = int((member.deadline - now) * 1000).bit_length()
    return inputs, request.model_name, magnitude, request.parameters.get(PRIORITY)


def joined(requests: Sequence[InferRequest]) -> InferRequest:
    """Row after row; the requests are alike, so that their bytes are simply those of one larger tensor."""
    first = requests[0]
    inputs = []
    for place, tensor in enumerate(first.inputs):
        parts = [request.inputs[place] for request in requests]
        shape = (sum([part.shape[0] for part in parts]), *tensor.shape[1:])
        data = memoryview(b"".join([part.data for part in parts]))
        inputs.append(Tensor(tensor.name, tensor.datatype, shape, data))
    return InferRequest(first.model_name, first.model_version, "", first.parameters, inputs)


def split(response: InferResponse, rows: Sequence[int]) -> list[InferResponse]:
    """Internal when an output has not one row per row sent."""
    total = sum(rows)
    for tensor in response.outputs:
        if not tensor.shape or tensor.shape[0] != total or tensor.datatype == "BYTES":
            raise Internal(f"output '{tensor.name}' came with shape {list(tensor.shape)} for {total} rows")
    tensors = [(tensor, tensor.data, tensor.nbytes // total, tensor.shape[1:]) for tensor in response.outputs]
    parts = []
    start = 0
    for count in rows:
        end = start + count
        outputs = [
            Tensor(tensor.name, tensor.datatype, (count, *shape), data[start * width : end * width])
            for tensor, data, width, shape in tensors
        ]
        # What the region says of itself is read, never changed, so that all parts may share it.
        parts.append(InferResponse(response.model_name, response.model_version, "", response.parameters, outputs))
        start = end
    return parts


def pass_on(source: asyncio.Future[InferResponse], target: asyncio.Future[InferResponse]) -> None:
    if target.done():
        if not source.cancelled():
            source.exception()
    elif source.cancelled():
        target.cancel()
    elif error := source.exception():
        target.set_exception(error)
    else:
        target.set_result(source.result())
