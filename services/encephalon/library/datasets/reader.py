"""Streams the samples of a split: shuffled, divided over workers, resumable at any sample."""

from __future__ import annotations

import difflib
import hashlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import Corrupt, InvalidInput, NotFound
from encephalon.library.datasets.making import Batched, Sample, batches_of, samples_of
from encephalon.library.datasets.order import WINDOW, Order, Share
from encephalon.library.datasets.shards import SHARD_ROWS
from encephalon.library.datasets.shelf import Fetches, Shelf
from encephalon.library.datasets.stream import Home, Stream, Stretch
from encephalon.library.records import Reference

if TYPE_CHECKING:
    from encephalon.library.library import Library

__all__ = ["StreamingReader", "open_data_set", "open_record"]


Chosen = Callable[[NDArray[np.int64]], NDArray[np.bool_]]
"""From the places of samples in the order in which a split was written to whether each is taken."""


class Reads(Fetches, Protocol):
    """What of `library.Library` is used here."""

    async def read(self, object: pb.Object) -> bytes: ...


@asynccontextmanager
async def open_data_set(
    library: Library,
    reference: str | Reference,
    split: str,
    *,
    seed: int = 0,
    epoch: int = 0,
    shuffle: bool = True,
    prefetch: int = 2,
    chosen: Chosen | None = None,
) -> AsyncIterator[StreamingReader]:
    """`async with open_data_set(library, "avmnist", "train") as reader`: shards come from the library's cache.

    `prefetch` shards are fetched ahead of those that are read. `chosen` tells which samples of the split there are for
    this reader, by their places in it; by default all. Raises `NotFound` for an unknown data set or split,
    `InvalidInput` for a number out of range.
    """
    record = await library.show(reference, kind="data_set")
    how: dict[str, Any] = {"seed": seed, "epoch": epoch, "shuffle": shuffle, "prefetch": prefetch, "chosen": chosen}
    async with open_record(library, record, split, **how) as reader:
        yield reader


@asynccontextmanager
async def open_record(
    library: Reads,
    record: pb.Record,
    split: str,
    *,
    seed: int = 0,
    epoch: int = 0,
    shuffle: bool = True,
    prefetch: int = 2,
    chosen: Chosen | None = None,
) -> AsyncIterator[StreamingReader]:
    """As `open_data_set`, for who has the record already: no more than its objects is asked for."""
    if not 0 <= prefetch <= 64:
        raise InvalidInput(f"prefetch is {prefetch}, expected 0 to 64 shards")
    found = _split(record, split)
    shards = await _shards(library, found)
    shelf = Shelf(library, shards, record.data_set.modalities, WINDOW + prefetch)
    try:
        how: dict[str, Any] = {"seed": seed, "epoch": epoch, "shuffle": shuffle, "prefetch": prefetch}
        yield StreamingReader(record, found, shards, shelf, chosen=chosen, **how)
    finally:
        await shelf.close()


class StreamingReader:
    """One split of a data set, in an order that depends on `seed` and `epoch` only.

    Iterating over the reader itself gives the rest of the epoch, from `position` on; behind the end the next epoch
    begins. `samples`, `worker` and `batches` leave `position` alone. All are read with `async for` in the loop that
    opened the data set, and with `for` in any other thread.
    """

    def __init__(
        self,
        record: pb.Record,
        split: pb.Split,
        shards: Sequence[pb.Shard],
        shelf: Shelf,
        *,
        seed: int,
        epoch: int,
        shuffle: bool,
        prefetch: int,
        chosen: Chosen | None = None,
    ) -> None:
        self.record = record
        """Of the version that is read."""
        self.split = split.name
        self.modalities: Sequence[pb.Modality] = list(record.data_set.modalities)
        self.seed, self.shuffle = seed, shuffle
        self.epoch, self.position = epoch, 0
        self._counts = [shard.samples for shard in shards]
        self._rows = None if chosen is None else _rows(self._counts, chosen)
        self._digest = _digest(shards)
        self._shelf, self._prefetch = shelf, prefetch
        self._home = Home()
        self._orders: dict[int, Order] = {}

    def __len__(self) -> int:
        """Samples of the split, or those that were chosen of it."""
        return sum(self._counts if self._rows is None else map(len, self._rows))

    @property
    def digest(self) -> str:
        """Equal for splits with the same samples."""
        return self._digest

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, which the labels number; empty when there is no label."""
        return next((list(one.classes) for one in self.modalities if one.type == "label"), [])

    def samples(self, start: int = 0, stop: int | None = None, *, epoch: int | None = None) -> Stream[Sample]:
        """The samples from `start` to `stop` of an epoch, by default the current one. Raises `InvalidInput` for a
        range that the split does not have."""
        return self._samples(self._share(start, stop), epoch)

    def worker(
        self, rank: int, count: int, start: int = 0, *, block: int = 1, skip: int = 0, epoch: int | None = None
    ) -> Stream[Sample]:
        """What worker `rank` of `count` takes of the samples from `start` on: every `count`-th block of `block`. All
        workers together take each sample once, whatever their number.

        Workers that make batches of `block` samples give, taken in turns, the batches of a single worker. `skip` of
        this worker's own samples are left out, when it goes on where it stopped.
        """
        return self._samples(self._share(start, None, rank=rank, count=count, block=block, skip=skip), epoch)

    def batches(
        self, size: int, start: int = 0, stop: int | None = None, *, epoch: int | None = None
    ) -> Stream[Batched]:
        """As `samples`, `size` at a time: arrays [batch, ...], lists where shapes differ. The last may be smaller."""
        if size < 1:
            raise InvalidInput(f"a batch of {size} samples is none; give 1 or more")
        share = self._share(start, stop)
        make = partial(batches_of, self.modalities, size, len(share))
        return Stream(self._plan(share, epoch), self._shelf.take, make, self._home, -(-len(share) // size))

    def set_epoch(self, epoch: int) -> None:
        """Goes to the beginning of an epoch."""
        self.epoch, self.position = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """Where the reader is: JSON values, for a checkpoint."""
        kept = {"seed": self.seed, "epoch": self.epoch, "shuffle": self.shuffle, "position": self.position}
        return {**kept, "samples": len(self), "shards": self._digest}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes to where a reader of the same split was. Raises `InvalidInput` for the state of another."""
        missing = {"seed", "epoch", "shuffle", "position", "samples", "shards"} - set(state)
        if missing:
            raise InvalidInput(f"the state of a reader lacks {', '.join(sorted(missing))}")
        if state["shards"] != self._digest:
            raise InvalidInput(
                f"the state was saved with {state['samples']} samples of another data set or split, this is "
                f"'{self.split}' of {Reference.of(self.record.id)} with {len(self)}"
            )
        if not 0 <= int(state["position"]) <= len(self):
            raise InvalidInput(f"the state stands at sample {state['position']} of {len(self)}")
        self.seed, self.shuffle = int(state["seed"]), bool(state["shuffle"])
        self.epoch, self.position = int(state["epoch"]), int(state["position"])
        self._orders.clear()

    async def __aiter__(self) -> AsyncIterator[Sample]:
        async for sample in self.samples(self.position):
            self.position += 1
            yield sample
        self.set_epoch(self.epoch + 1)

    def __iter__(self) -> Iterator[Sample]:
        for sample in self.samples(self.position):
            self.position += 1
            yield sample
        self.set_epoch(self.epoch + 1)

    def _samples(self, share: Share, epoch: int | None) -> Stream[Sample]:
        make = partial(samples_of, self.modalities)
        return Stream(self._plan(share, epoch), self._shelf.take, make, self._home, len(share))

    def _share(self, start: int, stop: int | None, **division: int) -> Share:
        end = len(self) if stop is None else stop
        if end > len(self):
            raise InvalidInput(f"the split '{self.split}' has {len(self)} samples, not {end}")
        return Share(start, end, **division)

    def _plan(self, share: Share, epoch: int | None) -> Callable[[], Iterator[Stretch]]:
        return partial(self._stretches, share, self._order(self.epoch if epoch is None else epoch))

    def _stretches(self, share: Share, order: Order) -> Iterator[Stretch]:
        for places in order.places(share):
            wanted = sorted(set(places.shard.tolist()))
            yield Stretch(places, wanted, order.shards_from(places.last, self._prefetch))

    def _order(self, epoch: int) -> Order:
        order = self._orders.get(epoch)
        if order is None:
            if len(self._orders) > 1:
                self._orders.pop(min(self._orders))
            order = Order(self._counts, seed=self.seed, epoch=epoch, shuffle=self.shuffle, rows=self._rows)
            self._orders[epoch] = order
        return order


def _split(record: pb.Record, name: str) -> pb.Split:
    names = [split.name for split in record.data_set.splits]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(names)}"
        raise NotFound(f"{Reference.of(record.id)} has no split '{name}'; {hint}", split=name)
    return record.data_set.splits[names.index(name)]


async def _shards(library: Reads, split: pb.Split) -> Sequence[pb.Shard]:
    shards: Sequence[pb.Shard] = split.shards
    if split.HasField("index"):
        shards = pb.ShardIndex.FromString(await library.read(split.index)).shards
    # An absurd number would be laid out in memory before the shard is looked at.
    absurd = any(shard.samples > 2 * SHARD_ROWS for shard in shards)
    if absurd or sum(shard.samples for shard in shards) != split.samples or not split.samples:
        raise Corrupt(
            f"the shards of split '{split.name}' do not hold the {split.samples} samples that its record says"
        )
    return shards


def _rows(counts: Sequence[int], chosen: Chosen) -> list[NDArray[np.int64]]:
    """Of each shard those that are taken."""
    starts = [0, *itertools.accumulate(counts)]
    return [
        np.flatnonzero(chosen(np.arange(start, start + count, dtype=np.int64)))
        for start, count in zip(starts, counts, strict=False)
    ]


def _digest(shards: Sequence[pb.Shard]) -> str:
    return hashlib.sha256(b"".join(bytes.fromhex(shard.object.sha256) for shard in shards)).hexdigest()[:32]
