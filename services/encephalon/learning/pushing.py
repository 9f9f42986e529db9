"""Contributions of one share on their way to the shards."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import torch

from encephalon.core.errors import Cancelled, DeadlineExceeded, EncephalonError, InvalidInput
from encephalon.core.status import as_error
from encephalon.learning.compression import ErrorFeedback, Piece, Rest, dense
from encephalon.learning.frames import ABSENT, LAST, SHARED, Batch, Codec, Frame, Key
from encephalon.learning.link import Link, Outgoing
from encephalon.learning.patience import BETWEEN_S, Patience
from encephalon.learning.sharing import Lease, Sharing

__all__ = ["Outbox", "Push", "Source"]

LOOK_S: Final = 0.25
"""Between two looks at whether a stream stands still."""


@dataclass(slots=True, eq=False)
class Item:
    """A slice; None: no contribution. What had to be chosen is chosen once, so that a repetition is the same."""

    slice: int
    size: int
    values: torch.Tensor | None
    codec: Codec
    chosen: list[Piece] | None = None


@dataclass(slots=True)
class _Run:
    """One try of a stream."""

    over: bool = False


class Outbox:
    """What goes to one shard: a stream that begins with the first slice and takes each as soon as it is there.

    A stream that breaks is begun again with everything from the first slice on; the shard leaves alone what it has. It
    then goes over the socket, because memory that frames on their way may still name must not be touched.
    """

    def __init__(
        self,
        link: Link,
        sharing: Sharing | None,
        key: Key,
        expected: int,
        feedback: ErrorFeedback | None,
        count: Callable[[int], None],
    ) -> None:
        self.address = link.address
        self._link = link
        self._sharing = sharing
        self._key = key
        self._expected = expected
        self._feedback = feedback
        self.rest: Rest = {}
        """What top-k has left unsent of this share."""
        self._count = count
        self._changed = threading.Condition()
        self._items: list[Item] = []
        self._stream: Outgoing | None = None
        self._run = _Run()
        self._lease: Lease | None = None
        self._error: EncephalonError | None = None
        self._moved_s = 0.0

    def put(self, item: Item) -> None:
        """Its values are not to be changed until `settle`."""
        with self._changed:
            self._items.append(item)
            self._changed.notify_all()
            first = self._stream is None and self._error is None
        if first:
            self._begin(share_memory=True)

    def settle(self, stall_s: float) -> None:
        """Until the shard has everything; begins the stream again when it breaks."""
        patience = Patience()
        self._moved_s = time.monotonic()
        while self._stream is not None:
            try:
                self._finished(self._stream, stall_s)
            except EncephalonError as error:
                if not patience.again(error):
                    raise
                self._over(self._run)
                self._let_go()
                time.sleep(BETWEEN_S)
                self._begin(share_memory=False)
            else:
                with self._changed:
                    lease, self._lease = self._lease, None
                if lease is not None:
                    lease.done()
                return

    def stop(self, error: EncephalonError) -> None:
        """Sends nothing more; whoever waits gets the error."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()
            stream = self._stream
        if stream is not None:
            stream.cancel()
        self._let_go()

    def _leased(self) -> Lease | None:
        """Asks the shard, when it knows no memory of this worker yet; so not in the thread that computes."""
        lease = self._sharing.lease() if self._sharing is not None else None
        with self._changed:
            self._lease, given_up = lease, self._error is not None
        if given_up:
            self._let_go()
        return lease

    def _let_go(self) -> None:
        with self._changed:
            lease, self._lease = self._lease, None
        if lease is not None and self._sharing is not None:
            self._sharing.abandon(lease)

    def _begin(self, *, share_memory: bool) -> None:
        run = self._run = _Run()
        stream = self._stream = self._link.push(self._messages(run, share_memory))
        stream.when_over(lambda: self._over(run))

    def _over(self, run: _Run) -> None:
        with self._changed:
            run.over = True
            self._changed.notify_all()

    def _finished(self, stream: Outgoing, stall_s: float) -> None:
        with self._changed:
            while not self._changed.wait_for(lambda: stream.over or self._error is not None, LOOK_S):
                if time.monotonic() - self._moved_s > stall_s:
                    stream.cancel()
                    raise DeadlineExceeded(f"the shard at {self.address} took nothing for {stall_s:g} s")
            if self._error is not None:
                raise self._error
        stream.receipt()

    def _messages(self, run: _Run, share_memory: bool) -> Iterator[bytes]:
        """Called in a thread of the stream's."""
        try:
            yield from self._packed(run, self._leased() if share_memory else None)
        except Exception as error:  # noqa: BLE001 - whoever waits is told
            if not run.over:  # else its memory was taken away, and another stream has begun
                self.stop(as_error(error))

    def _packed(self, run: _Run, lease: Lease | None) -> Iterator[bytes]:
        batch = Batch()
        for at in range(self._expected):
            if len(batch) and at >= len(self._items):  # rather send a small message than wait for the next slice
                yield self._moved(batch)
            item = self._next(at, run)
            if item is None:
                return
            for frame in self._framed(item, lease):
                if not batch.fits(frame):
                    yield self._moved(batch)
                batch.add(frame)
        if len(batch):
            yield self._moved(batch)

    def _framed(self, item: Item, lease: Lease | None) -> Iterator[Frame]:
        if item.values is None:
            yield Frame(self._key, item.slice, 0, item.size, Codec.FP32, LAST | ABSENT, memoryview(b""))
        elif lease is not None:
            place = lease.place(item.slice, item.values).packed()
            self._count(4 * item.size)
            yield Frame(self._key, item.slice, 0, item.size, Codec.FP32, LAST | SHARED, memoryview(place))
        else:
            for piece in self._pieces(item, item.values):
                last = LAST if piece.offset + piece.count == item.size else 0
                yield Frame(self._key, item.slice, piece.offset, piece.count, piece.codec, last, piece.payload)

    def _pieces(self, item: Item, values: torch.Tensor) -> Iterable[Piece]:
        if item.codec is not Codec.TOPK or self._feedback is None:
            return dense(values, item.codec)
        if item.chosen is None:
            item.chosen = list(self._feedback.choose(item.slice, values, self.rest).pieces())
        return item.chosen

    def _moved(self, batch: Batch) -> bytes:
        self._moved_s = time.monotonic()
        self._count(len(batch))
        return batch.take()

    def _next(self, at: int, run: _Run) -> Item | None:
        """Waits for it. None when the stream is over."""
        with self._changed:
            self._changed.wait_for(lambda: at < len(self._items) or run.over or self._error is not None)
            return None if run.over or self._error is not None else self._items[at]


@dataclass(frozen=True, slots=True)
class Source:
    """A tensor of the model, and where its slices go: shard, number, first element and the one after the last."""

    name: str
    elements: int
    slices: tuple[tuple[int, int, int, int], ...]


class Push:
    """Contributions of one share, sent while the backward pass still runs."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        outboxes: Mapping[int, Outbox],
        codec: Codec,
        feedback: ErrorFeedback | None,
        *,
        stall_s: float,
    ) -> None:
        self._sources = sources
        self._outboxes = outboxes
        self._codec = codec
        self._feedback = feedback
        self._stall_s = stall_s
        self._waiting = set(sources)

    def gradient(self, name: str, tensor: torch.Tensor | None) -> None:
        """The gradient is final, and must not be changed until `finish`; None: the parameter has none.

        Does not wait, so it may be called from a hook of the backward pass. InvalidInput for another tensor's size.
        """
        self._put(name, tensor, self._codec)

    def value(self, name: str, tensor: torch.Tensor) -> None:
        """Of a buffer, weighted by the share's samples. Goes as float32 always: it is no step, it is what will be."""
        self._put(name, tensor, Codec.FP32)

    def finish(self) -> None:
        """Until all shards have everything.

        Unavailable when a shard is away, Overloaded when one holds too many contributions, DeadlineExceeded when one
        took nothing for ten seconds, FailedPrecondition when generation or attempt are over (drop the share),
        Cancelled after `abort`. Nothing of the share counts then.
        """
        if self._waiting:
            raise ValueError(f"tensor '{min(self._waiting)}' was not pushed; give None if it has no gradient")
        try:
            for outbox in self._outboxes.values():
                outbox.settle(self._stall_s)
        except EncephalonError as error:
            self._stop(error)
            raise
        if self._feedback is not None:
            for outbox in self._outboxes.values():
                self._feedback.keep(outbox.rest)

    def abort(self) -> None:
        """Sends nothing more; what was sent is not whole and so never counts. From any thread."""
        self._stop(Cancelled("the push was given up"))

    def _stop(self, error: EncephalonError) -> None:
        for outbox in self._outboxes.values():
            outbox.stop(error)

    def _put(self, name: str, tensor: torch.Tensor | None, codec: Codec) -> None:
        if name not in self._waiting:
            raise ValueError(f"tensor '{name}' is not pushed here, or was pushed before")
        source = self._sources[name]
        flat = None if tensor is None else _flat(tensor, source)
        self._waiting.remove(name)
        for shard, number, start, stop in source.slices:
            values = None if flat is None else flat[start:stop]
            self._outboxes[shard].put(Item(number, stop - start, values, codec))


def _flat(tensor: torch.Tensor, source: Source) -> torch.Tensor:
    tensor = tensor.detach()
    if tensor.numel() != source.elements:
        raise InvalidInput(
            f"the gradient of '{source.name}' has {tensor.numel()} elements, expected {source.elements}",
            tensor=source.name,
        )
    dense_tensor = tensor.to_dense() if tensor.is_sparse else tensor
    return dense_tensor.to("cpu", torch.float32).reshape(-1)
