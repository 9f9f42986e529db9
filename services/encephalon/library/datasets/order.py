"""The order in which an epoch gives the samples of a split: a function of seed and epoch, and of nothing else.

Shards are permuted; `WINDOW` of them in a row make a group, and the samples are permuted within their group. So any
place of an epoch is found without making the order of what is before it, and memory is that of one group. Permutations
come from a hash, not from numpy's generators, whose streams may change from release to release: an order must be the
same on every machine of a job, and after an upgrade.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from encephalon.core.errors import InvalidInput

__all__ = ["WINDOW", "Order", "Places", "Share", "mixed", "permutation"]

WINDOW: Final = 4
"""Shards in a group: what lies in one shard is spread over 128 MiB of samples."""


@dataclass(frozen=True, slots=True)
class Places:
    """Samples in the order in which they are given, all from one group: `row[i]` of shard `shard[i]`."""

    shard: NDArray[np.int64]
    row: NDArray[np.int64]
    last: int
    """The last of them, as a place of the epoch."""

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True, slots=True)
class Share:
    """The places from `start` to `stop` of an epoch that worker `rank` of `count` takes: every `count`-th block of
    `block` places. `skip` of its own are left out. Raises `InvalidInput` for what is no share."""

    start: int
    stop: int
    rank: int = 0
    count: int = 1
    block: int = 1
    skip: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop:
            raise InvalidInput(f"samples {self.start} to {self.stop} are no range; the start must not be behind it")
        if self.count < 1 or not 0 <= self.rank < self.count:
            raise InvalidInput(f"worker {self.rank} of {self.count} does not exist; ranks count from 0")
        if self.block < 1 or self.skip < 0:
            raise InvalidInput(f"a block of {self.block} and {self.skip} skipped samples are none; give 1 or more, 0")

    def __len__(self) -> int:
        return max(self.before(self.stop) - self.skip, 0)

    def before(self, place: int) -> int:
        """How many of this worker's places lie before `place`, those skipped included."""
        whole, rest = divmod(max(min(place, self.stop) - self.start, 0), self.block * self.count)
        return whole * self.block + min(max(rest - self.rank * self.block, 0), self.block)

    def within(self, first: int, last: int) -> NDArray[np.int64]:
        """This worker's places from `first` to `last`, ascending."""
        places = np.arange(max(first, self.start), min(last, self.stop), dtype=np.int64)
        mine: NDArray[np.int64] = places[(places - self.start) // self.block % self.count == self.rank]
        return mine[max(self.skip - self.before(first), 0) :]


class Order:
    """One epoch of a split whose shards hold `counts` samples, or only of those `rows` of each shard."""

    def __init__(
        self,
        counts: Sequence[int],
        *,
        seed: int = 0,
        epoch: int = 0,
        shuffle: bool = True,
        rows: Sequence[NDArray[np.int64]] | None = None,
    ) -> None:
        self._rows = rows
        self._counts = np.asarray(counts if rows is None else [len(each) for each in rows], np.int64)
        self._key = (seed, epoch)
        self._shuffle = shuffle
        number = len(self._counts)
        # In the order of the shards nothing is spread: one is open at a time.
        self._window = WINDOW if shuffle else 1
        self._shards = permutation(number, *self._key) if shuffle else np.arange(number, dtype=np.int64)
        ends = np.cumsum(self._counts[self._shards])
        # Where each group ends, in places of the epoch.
        self._ends: list[int] = [int(ends[min(at + self._window, number) - 1]) for at in range(0, number, self._window)]
        self._group = functools.lru_cache(maxsize=2)(self._make_group)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def places(self, share: Share) -> Iterator[Places]:
        """The share's samples, group by group; groups in which it has none are left out."""
        group = bisect.bisect_right(self._ends, share.start)
        while group < len(self._ends) and self._first(group) < share.stop:
            mine = share.within(self._first(group), self._ends[group])
            if len(mine):
                whole = self._group(group)
                within = mine - self._first(group)
                yield Places(whole.shard[within], whole.row[within], int(mine[-1]))
            group += 1

    def shards_from(self, place: int, most: int) -> list[int]:
        """The next shards behind the group of `place`: what will be wanted soon."""
        group = bisect.bisect_right(self._ends, place) + 1
        return [int(shard) for shard in self._shards[group * self._window :][:most]]

    def _first(self, group: int) -> int:
        return self._ends[group - 1] if group else 0

    def _make_group(self, group: int) -> Places:
        shards = self._shards[group * self._window :][: self._window]
        counts = self._counts[shards]
        shard = np.repeat(shards, counts)
        row = np.arange(len(shard), dtype=np.int64) - np.repeat(np.cumsum(counts) - counts, counts)
        if self._rows is not None:
            row = np.concatenate([self._rows[at] for at in shards.tolist()])
        if self._shuffle:
            drawn = permutation(len(shard), *self._key, group + 1)
            shard, row = shard[drawn], row[drawn]
        return Places(shard, row, self._ends[group] - 1)


def permutation(count: int, *key: int) -> NDArray[np.int64]:
    """The numbers below `count` in an order drawn by `key`: sorted by their hash, so every order is equally likely."""
    state = np.zeros(1, np.uint64)
    for part in key:
        state = mixed(state ^ np.uint64(part & 0xFFFF_FFFF_FFFF_FFFF))
    keys = mixed(state + np.arange(count, dtype=np.uint64) * np.uint64(0x9E37_79B9_7F4A_7C15))
    return np.argsort(keys, kind="stable").astype(np.int64, copy=False)


def mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014; constants of Stafford's variant 13)."""
    x = x + np.uint64(0x9E37_79B9_7F4A_7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    return x ^ (x >> np.uint64(31))
