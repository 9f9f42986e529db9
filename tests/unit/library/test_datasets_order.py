"""The order of an epoch: every sample once, the same everywhere, whoever takes which part."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encephalon.core.errors import InvalidInput
from encephalon.library.datasets.order import WINDOW, Order, Places, Share, permutation

COUNTS = st.lists(st.integers(1, 40), min_size=1, max_size=15)
SEEDS = st.integers(0, 2**63 - 1)

Sample = tuple[int, int]


def flat(parts: Iterable[Places]) -> list[Sample]:
    return [pair for part in parts for pair in zip(part.shard.tolist(), part.row.tolist(), strict=True)]


def whole(counts: Sequence[int], **how: int) -> list[Sample]:
    order = Order(counts, **how)
    return flat(order.places(Share(0, len(order))))


@given(COUNTS, SEEDS, st.integers(0, 5), st.booleans())
def test_an_epoch_has_every_sample_once(counts: list[int], seed: int, epoch: int, shuffle: bool) -> None:
    every = [(shard, row) for shard, count in enumerate(counts) for row in range(count)]
    found = whole(counts, seed=seed, epoch=epoch, shuffle=shuffle)
    assert sorted(found) == every
    assert shuffle or found == every


@given(COUNTS, SEEDS, st.integers(1, 9), st.integers(1, 20), st.data())
def test_workers_take_every_sample_once(
    counts: list[int], seed: int, workers: int, block: int, data: st.DataObject
) -> None:
    order = Order(counts, seed=seed)
    start = data.draw(st.integers(0, len(order)))
    shares = [Share(start, len(order), rank, workers, block) for rank in range(workers)]
    parts = [flat(order.places(share)) for share in shares]
    assert [len(part) for part in parts] == [len(share) for share in shares]
    # In turns, block by block, they give what one worker gives alone.
    turns = range(0, len(order), block)
    joined = [pair for at in turns for part in parts for pair in part[at : at + block]]
    assert joined == whole(counts, seed=seed)[start:]


@given(COUNTS, SEEDS, st.integers(1, 4), st.integers(1, 7), st.data())
def test_a_worker_goes_on_where_it_stopped(
    counts: list[int], seed: int, workers: int, block: int, data: st.DataObject
) -> None:
    order = Order(counts, seed=seed)
    rank = data.draw(st.integers(0, workers - 1))
    mine = flat(order.places(Share(0, len(order), rank, workers, block)))
    skip = data.draw(st.integers(0, len(mine)))
    rest = Share(0, len(order), rank, workers, block, skip)
    assert flat(Order(counts, seed=seed).places(rest)) == mine[skip:]
    assert len(rest) == len(mine) - skip


@given(COUNTS, SEEDS, st.data())
def test_any_range_is_that_part_of_the_epoch(counts: list[int], seed: int, data: st.DataObject) -> None:
    order = Order(counts, seed=seed)
    start = data.draw(st.integers(0, len(order)))
    stop = data.draw(st.integers(start, len(order)))
    assert flat(order.places(Share(start, stop))) == whole(counts, seed=seed)[start:stop]


def test_seeds_and_epochs_give_other_orders() -> None:
    counts = [50] * 10
    orders = [whole(counts, seed=seed, epoch=epoch) for seed in range(3) for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 9


def test_what_lies_side_by_side_is_spread_over_the_window() -> None:
    """Correlation of neighbours in a shuffled epoch, over shards that each hold one class."""
    found = np.array(whole([500] * 40, seed=1))
    same = float(np.mean(found[1:, 0] == found[:-1, 0]))
    assert same == pytest.approx(1 / WINDOW, abs=0.02)


@pytest.mark.parametrize("count", [2, 3, 10])
def test_each_place_is_equally_likely(count: int) -> None:
    firsts = [int(permutation(count, seed)[0]) for seed in range(6000)]
    share = np.bincount(firsts, minlength=count) / len(firsts)
    assert np.abs(share - 1 / count).max() < 0.03


def test_the_order_is_a_promise() -> None:
    """A checkpoint names a place of an order: it must mean the same after an upgrade, on every machine."""
    assert permutation(10, 0, 0).tolist() == [0, 7, 8, 2, 5, 9, 4, 6, 3, 1]
    text = repr(whole([7, 11, 5, 3, 20, 1], seed=42, epoch=3)).encode()
    assert hashlib.sha256(text).hexdigest()[:16] == "ac4d25bcb3bc25bf"


def test_memory_is_that_of_a_group() -> None:
    """Two thousand shards of the most samples: a place in the middle is found at once."""
    order = Order([1 << 16] * 2000, seed=5)
    place = len(order) // 2
    found = flat(order.places(Share(place, place + 3)))
    assert len(found) == 3


def test_what_is_wanted_soon_lies_behind_the_group() -> None:
    order = Order([10] * 11, seed=3)
    seen: list[int] = []
    for part in order.places(Share(0, len(order))):
        seen += sorted(set(part.shard.tolist()))
        ahead = order.shards_from(part.last, 3)
        assert len(ahead) == min(3, 11 - len(seen))
        assert not set(ahead) & set(seen)


@pytest.mark.parametrize(
    "share",
    [
        {"start": 5, "stop": 4},
        {"start": -1, "stop": 4},
        {"start": 0, "stop": 4, "rank": 2, "count": 2},
        {"start": 0, "stop": 4, "rank": -1, "count": 2},
        {"start": 0, "stop": 4, "count": 0},
        {"start": 0, "stop": 4, "block": 0},
        {"start": 0, "stop": 4, "skip": -1},
    ],
)
def test_what_is_no_share_is_refused(share: dict[str, int]) -> None:
    with pytest.raises(InvalidInput, match=r"^.+"):
        Share(**share)
