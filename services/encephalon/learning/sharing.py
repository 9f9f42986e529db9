"""Memory shared with one shard of the same machine: where its parameters are read, and where gradients are left for it.

When may a gradient be overwritten? Only when the shard has said that nothing of it will read it again. It says so in
the segment itself: before it first uses the memory it writes the number of the push (`use`) as HELD, and when the last
tensor that looks at the memory is gone, as RELEASED. So whatever the shard does with a contribution (waits for other
ranks, adds it twice because an attempt was replaced, drops the update, loads another generation), it is right as long
as it holds what it still wants to read.

The worker takes a segment again when the push through it ended with a receipt, for then the shard has seen every frame
and will hold nothing that it does not hold already, and when it is either not held for this use or released. After
anything else (a broken stream, a push that was given up) frames may still be on their way, so the segment is never
written again: it is let go, and lives until the shard lets it go as well. With none free (several updates are open)
the push goes over the socket.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

import torch

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.core.errors import Cancelled, DeadlineExceeded, EncephalonError, Unavailable
from encephalon.learning import segments
from encephalon.learning.frames import Place
from encephalon.learning.link import Incoming, Link
from encephalon.learning.segments import PAGE, Segment

__all__ = ["CHANGES", "HELD", "RELEASED", "VERSION", "Lease", "Sharing", "read"]

LOG = logging.getLogger(__name__)

HELD, RELEASED = 0, 1
"""Words of a segment of gradients."""
CHANGES, VERSION = 0, 1
"""Words of a segment of parameters. CHANGES is odd while they are being changed, and another number afterwards."""

MOST: Final = 2
"""Segments of gradients: one of an update that waits for its decision, one for the next."""
ALIGN: Final = 64
AGAIN_S: Final = 0.0005
"""Between two looks at parameters that are being changed."""


class Lease:
    """A segment of gradients for one push."""

    def __init__(self, segment: Segment, number: int, call: Incoming, offsets: dict[int, int]) -> None:
        self._segment = segment
        self._number = number
        self._call = call
        self._offsets = offsets
        self._use = 0
        self._clean = True

    def begin(self) -> Lease:
        self._use += 1
        self._clean = False
        return self

    def place(self, slice: int, values: torch.Tensor) -> Place:
        """Leaves a whole slice in the memory."""
        offset = self._offsets[slice]
        self._segment.write(offset, values)
        return Place(self._number, self._use, offset)

    def done(self) -> None:
        """The push has its receipt."""
        self._clean = True

    @property
    def free(self) -> bool:
        held, released = self._segment.words(2)
        return self._clean and (held != self._use or released == self._use)

    @property
    def lost(self) -> bool:
        """The shard does not know the memory any more."""
        return not self._call.alive

    def close(self) -> None:
        self._call.cancel()
        self._segment.close()


class Sharing:
    """With one shard. When it turns out not to work, there is none, and everything goes over the socket."""

    def __init__(self, link: Link, generation: int, sizes: dict[int, int]) -> None:
        self._link = link
        self._generation = generation
        self._offsets, self._bytes = _arranged(sizes)
        self._leases: list[Lease] = []
        self._parameters: Segment | None = None
        self._works = segments.supported()
        self._lock = threading.Lock()

    def lease(self) -> Lease | None:
        """A segment that nobody reads; None when there is none."""
        with self._lock:
            for lost in [lease for lease in self._leases if lease.lost]:
                self._drop(lost)
            free = next((lease for lease in self._leases if lease.free), None)
            if free is None and len(self._leases) < MOST and self._works:
                free = self._tried()
            return free and free.begin()

    def abandon(self, lease: Lease) -> None:
        """Its push did not end well."""
        with self._lock:
            if lease in self._leases:
                self._drop(lease)

    def parameters(self) -> Segment | None:
        """Of the shard, to be read with `read`."""
        with self._lock:
            if self._parameters is None and self._works:
                try:
                    response, call = self._link.share(pb.ShareRequest(generation=self._generation))
                    call.cancel()
                    self._parameters = segments.opened(response.parameters, write=False)
                except EncephalonError as error:
                    self._not(error)
            return self._parameters

    def close(self) -> None:
        with self._lock:
            while self._leases:
                self._drop(self._leases[0])
            if self._parameters is not None:
                self._parameters.close()
            self._parameters, self._works = None, False

    def _drop(self, lease: Lease) -> None:
        self._leases.remove(lease)
        lease.close()

    def _tried(self) -> Lease | None:
        segment = segments.created(self._bytes)
        try:
            request = pb.ShareRequest(generation=self._generation, gradients=segment.described())
            response, call = self._link.share(request)
        except EncephalonError as error:
            segment.close()
            self._not(error)
            return None
        self._leases.append(Lease(segment, response.segment, call, self._offsets))
        return self._leases[-1]

    def _not(self, error: EncephalonError) -> None:
        """A shard that is away says nothing of its memory."""
        if isinstance(error, Unavailable):
            return
        self._works = False
        LOG.warning("no memory is shared with a shard of this machine", extra={"cause": error.message})


def read(
    parameters: Segment,
    offset: int,
    into: torch.Tensor,
    within_s: float,
    given_up: Callable[[], bool] = lambda: False,
) -> int:
    """A slice as it was between two changes, and the version that it had.

    DeadlineExceeded, or Cancelled when it is given up, while they are being changed; a shard that was killed meanwhile
    leaves them so for ever.
    """
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if given_up():
            raise Cancelled("parameters were being changed until nobody wanted them any more")
        before, version = parameters.words(2)
        if before % 2 == 0:
            parameters.read(offset, into)
            if parameters.words(1)[0] == before:
                return version
        else:
            time.sleep(AGAIN_S)
    raise DeadlineExceeded(f"parameters were being changed for {within_s:g} s without end")


def _arranged(sizes: dict[int, int]) -> tuple[dict[int, int], int]:
    """Where each slice begins, and bytes of all."""
    offsets, at = {}, PAGE
    for number, elements in sorted(sizes.items()):
        offsets[number] = at
        at += -(-4 * elements // ALIGN) * ALIGN
    return offsets, at - PAGE
