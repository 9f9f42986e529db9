"""Parameters on their way from the shards into tensors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.core.errors import (
    Cancelled,
    DeadlineExceeded,
    EncephalonError,
    FailedPrecondition,
    InvalidInput,
    Unavailable,
)
from encephalon.core.status import as_error
from encephalon.learning.compression import decode
from encephalon.learning.frames import ABSENT, SHARED, Frame, Place, frames
from encephalon.learning.link import Incoming, Link
from encephalon.learning.patience import BETWEEN_S, Patience
from encephalon.learning.segments import Segment
from encephalon.learning.sharing import Sharing, read

__all__ = ["Lane", "Part", "Pull", "Target"]

LOOK_S = 0.25
"""Between two looks at whether a stream stands still."""


class Target:
    """A tensor that is filled slice by slice."""

    def __init__(self, name: str, tensor: torch.Tensor, elements: int) -> None:
        if tensor.dtype is not torch.float32 or tensor.numel() != elements or tensor.device.type != "cpu":
            raise InvalidInput(
                f"tensor '{name}' is {tensor.dtype} with {tensor.numel()} elements on {tensor.device}, expected "
                f"float32 with {elements} on the CPU",
                tensor=name,
            )
        self.name = name
        self.missing = elements
        self._tensor = tensor.detach()
        # Rows in another order than in memory (channels last): filled beside it.
        self._beside = not tensor.is_contiguous()
        self.flat = (torch.empty(elements) if self._beside else self._tensor).view(-1)

    def filled(self, elements: int) -> None:
        self.missing -= elements
        if not self.missing and self._beside:
            self._tensor.copy_(self.flat.view(self._tensor.shape))


@dataclass(slots=True)
class Part:
    """Where a slice goes. `covered`: elements that have come on this stream."""

    target: Target
    into: torch.Tensor
    covered: int = 0


@dataclass(slots=True, eq=False)
class Lane:
    """A shard, and what is wanted of it: parts by number of the slice, in forward order."""

    link: Link
    sharing: Sharing | None
    wire: str
    parts: dict[int, Part]
    call: Incoming | None = None
    moved_s: float = 0.0
    """When something came last."""


class Pull:
    """Fills tensors in forward order, from all shards at the same time; those that have come may be used meanwhile.

    A slice that was read from shared memory, and a frame that came over a socket, never mix two versions. Slices of one
    shard do only when an update is decided meanwhile: that may be in ssp and async, and in sync only when this share
    was given to another worker, so that its gradients will be refused. `mixed` says so.
    """

    def __init__(
        self,
        generation: int,
        version: int,
        lanes: Sequence[Lane],
        targets: Mapping[str, Target],
        *,
        stall_s: float,
        count: Callable[[int], None],
    ) -> None:
        self._generation = generation
        self._wanted = version
        self._lanes = [lane for lane in lanes if lane.parts]
        self._targets = targets
        self._stall_s = stall_s
        self._count = count
        self._changed = threading.Condition()
        self._error: EncephalonError | None = None
        self._versions: dict[int, set[int]] = {}
        self._threads = [
            threading.Thread(target=self._receive, args=(lane,), name=f"pull {lane.link.address}", daemon=True)
            for lane in self._lanes
        ]
        for lane, thread in zip(self._lanes, self._threads, strict=True):
            lane.moved_s = time.monotonic()
            thread.start()

    @property
    def version(self) -> int:
        """Of the parameters that came, the lowest; known after `wait_all`."""
        return min((min(seen) for seen in self._versions.values()), default=self._wanted)

    @property
    def mixed(self) -> bool:
        """Whether slices of one shard have different versions."""
        return any(len(seen) > 1 for seen in self._versions.values())

    def wait(self, name: str) -> None:
        """Until the tensor is there.

        Unavailable when a shard is away, DeadlineExceeded when nothing came from one for ten seconds,
        FailedPrecondition when the generation is over (drop the share), Cancelled after `abort`.
        """
        target = self._targets[name]
        self._until(lambda: not target.missing)

    def wait_all(self) -> None:
        """Until every tensor is there; raises as `wait`."""
        self._until(lambda: not any(target.missing for target in self._targets.values()))

    def abort(self) -> None:
        """Nothing writes into the tensors any more when it returns. From any thread; harmless when all is there."""
        self._fail(Cancelled("the pull was given up"))
        for thread in self._threads:
            thread.join()

    def _until(self, there: Callable[[], bool]) -> None:
        with self._changed:
            while not self._changed.wait_for(lambda: there() or self._error is not None, LOOK_S):
                self._look()
            if self._error is not None and not there():
                raise self._error

    def _look(self) -> None:
        for lane in self._lanes:
            if lane.parts and time.monotonic() - lane.moved_s > self._stall_s:
                self._fail(DeadlineExceeded(f"the shard at {lane.link.address} sent nothing for {self._stall_s:g} s"))

    def _fail(self, error: EncephalonError) -> None:
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()
            calls = [lane.call for lane in self._lanes if lane.call is not None]
        for call in calls:
            call.cancel()

    def _given_up(self) -> bool:
        return self._error is not None

    def _receive(self, lane: Lane) -> None:
        """The thread of a shard."""
        patience = Patience()
        try:
            while lane.parts and self._error is None:
                try:
                    self._stream(lane)
                except EncephalonError as error:
                    if not patience.again(error):
                        raise
                    time.sleep(BETWEEN_S)
        except Exception as error:  # noqa: BLE001 - whoever waits is told
            self._fail(as_error(error))

    def _stream(self, lane: Lane) -> None:
        shared = lane.sharing.parameters() if lane.sharing is not None else None
        for part in lane.parts.values():
            part.covered = 0
        request = pb.PullRequest(
            generation=self._generation,
            version=self._wanted,
            slices=list(lane.parts),
            wire=lane.wire,
            shared=shared is not None,
        )
        call = lane.link.pull(request)
        with self._changed:
            lane.call = call
            given_up = self._error is not None
        if given_up:
            call.cancel()
            return
        sizes = {number: len(part.into) for number, part in lane.parts.items()}
        try:
            for message in call:
                for frame in frames(message, sizes):
                    if self._error is not None:
                        return
                    self._take(lane, frame, shared)
        finally:
            call.cancel()
        if lane.parts:
            raise Unavailable(f"the shard at {lane.link.address} ended its stream too early")

    def _take(self, lane: Lane, frame: Frame, shared: Segment | None) -> None:
        part = lane.parts.get(frame.slice)
        if frame.key.generation != self._generation:  # the shard goes on under another one while it sends
            raise FailedPrecondition(
                f"generation {self._generation} is over, the shard at {lane.link.address} has gone on to "
                f"{frame.key.generation}; ask for the shards again",
                generation=frame.key.generation,
            )
        if part is None or frame.offset != part.covered:
            raise InvalidInput(f"a frame of slice {frame.slice} came that does not continue it", slice=frame.slice)
        version = frame.key.number
        if frame.flags & SHARED and shared is not None:
            version = read(shared, Place.of(frame.payload).offset, part.into, self._stall_s, self._given_up)
        elif frame.flags & (ABSENT | SHARED):
            raise InvalidInput(f"slice {frame.slice} of the parameters came with flags {frame.flags}")
        else:
            decode(frame.codec, frame.payload, part.into[frame.offset : frame.offset + frame.count])
        part.covered += frame.count
        self._count(4 * frame.count if frame.flags & SHARED else len(frame.payload))
        self._taken(lane, frame.slice, part, version)

    def _taken(self, lane: Lane, number: int, part: Part, version: int) -> None:
        with self._changed:
            lane.moved_s = time.monotonic()
            self._versions.setdefault(id(lane), set()).add(version)
            if part.covered == len(part.into):
                part.target.filled(part.covered)
                del lane.parts[number]
                self._changed.notify_all()
