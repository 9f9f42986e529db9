"""A split read back: every sample once, in one order, whatever happens to the cache meanwhile."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import Corrupt, FailedPrecondition, InvalidInput, NotFound, Unavailable
from encephalon.library.datasets import Sample, add_arrays, open_data_set, open_record, packing, reading
from encephalon.library.datasets.shelf import Shelf
from encephalon.library.library import Library
from encephalon.library.open import open_library
from tests.unit.library.data_sets import columns_of, opened, stores, tiny_shards

COUNT = 101


@pytest.fixture
async def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Library]:
    """With the data set "set": 101 samples in 13 shards."""
    tiny_shards(monkeypatch, 8)
    async with opened(tmp_path) as library:
        await add_arrays(library, "set", columns_of(COUNT), {"train": slice(None), "test": [3, 1, 4]})
        yield library


def row_of(sample: Sample) -> int:
    """All columns must be of the same row."""
    row = int(str(sample["caption"]).removeprefix("row "))
    assert (sample["image"] == row).all()  # type: ignore[union-attr]
    assert len(sample["sound"]) == 1 + row % 5  # type: ignore[arg-type]
    assert (sample["sound"] == row).all()  # type: ignore[union-attr]
    assert sample["flag"] is (row % 2 == 0)
    assert sample["label"] == row % 10
    assert type(sample["label"]) is int
    return row


async def rows(stream: Any) -> list[int]:
    return [row_of(sample) async for sample in stream]


async def test_some_samples_may_be_chosen_by_their_places(library: Library) -> None:
    async with (
        open_data_set(library, "set", "train", chosen=lambda places: places % 3 == 0) as some,
        open_data_set(library, "set", "train", chosen=lambda places: places % 3 != 0) as others,
        open_data_set(library, "set", "train", chosen=lambda places: places > 90, shuffle=False) as last,
    ):
        assert len(some) + len(others) == COUNT
        found = [await rows(reader.samples()) for reader in (some, others)]
        assert sorted(found[0]) == list(range(0, COUNT, 3))
        assert sorted(found[0] + found[1]) == list(range(COUNT))
        assert found[0] != sorted(found[0])
        assert await rows(some.samples(4, 20)) == found[0][4:20]
        assert await rows(last.samples()) == list(range(91, COUNT))
        with pytest.raises(InvalidInput, match="has 10 samples, not 11"):
            last.samples(0, 11)


async def test_every_sample_once_in_an_order_of_seed_and_epoch(library: Library) -> None:
    found = {}
    for seed in (0, 1):
        async with open_data_set(library, "set", "train", seed=seed) as reader:
            assert len(reader) == COUNT
            assert reader.classes == [str(digit) for digit in range(10)]
            for epoch in (0, 1):
                found[seed, epoch] = await rows(reader)
            assert reader.epoch == 2
            assert await rows(reader.samples(epoch=0)) == found[seed, 0]
    assert len({tuple(order) for order in found.values()}) == 4
    assert all(sorted(order) == list(range(COUNT)) for order in found.values())


async def test_in_order_when_not_shuffled(library: Library) -> None:
    async with open_data_set(library, "set", "train", shuffle=False) as reader:
        assert await rows(reader) == list(range(COUNT))
    async with open_data_set(library, "data_set:set@1", "test", shuffle=False) as reader:
        assert await rows(reader) == [3, 1, 4]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    workers=st.integers(1, 8),
    block=st.integers(1, 20),
    start=st.integers(0, COUNT),
    seed=st.integers(0, 9),
    prefetch=st.integers(0, 4),
)
async def test_workers_share_the_samples(
    library: Library, workers: int, block: int, start: int, seed: int, prefetch: int
) -> None:
    async with open_data_set(library, "set", "train", seed=seed, prefetch=prefetch) as reader:
        whole = await rows(reader.samples())
        streams = [reader.worker(rank, workers, start, block=block) for rank in range(workers)]
        parts = await asyncio.gather(*(rows(stream) for stream in streams))
        assert [len(part) for part in parts] == [len(stream) for stream in streams]
        turns = range(0, COUNT, block)
        assert [row for at in turns for part in parts for row in part[at : at + block]] == whole[start:]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, COUNT), seed=st.integers(0, 9), epoch=st.integers(0, 3))
async def test_a_reader_goes_on_where_another_stopped(library: Library, place: int, seed: int, epoch: int) -> None:
    async with open_data_set(library, "set", "train", seed=seed, epoch=epoch) as first:
        whole = await rows(first.samples())
        stream = aiter(first)
        for _ in range(place):
            await anext(stream)
        state = first.state_dict()
        await stream.aclose()  # type: ignore[attr-defined]
    async with open_data_set(library, "set", "train") as second:
        second.load_state_dict(state)
        assert await rows(second) == whole[place:]
        assert await rows(second.samples(place, epoch=epoch)) == whole[place:]


async def test_leases_of_ranges_together_are_the_epoch(library: Library) -> None:
    async with open_data_set(library, "set", "train", seed=3) as reader:
        parts = [await rows(reader.samples(at, min(at + 7, COUNT))) for at in range(0, COUNT, 7)]
        assert [row for part in parts for row in part] == await rows(reader.samples())


@pytest.mark.parametrize("size", [1, 7, COUNT, 500])
async def test_batches_stack_what_has_one_shape(library: Library, size: int) -> None:
    async with open_data_set(library, "set", "train") as reader:
        whole = [sample async for sample in reader.samples(5, 60)]
        stream = reader.batches(size, 5, 60)
        batches = [batch async for batch in stream]
        assert len(batches) == len(stream) == -(-55 // size)
        at = 0
        for batch in batches:
            part = whole[at : at + size]
            assert batch["image"].shape == (len(part), 4, 3)  # type: ignore[union-attr]
            assert batch["image"].dtype == np.uint8  # type: ignore[union-attr]
            assert batch["label"].dtype == np.int64  # type: ignore[union-attr]
            for name in whole[0]:
                for got, want in zip(batch[name], [sample[name] for sample in part], strict=True):
                    np.testing.assert_array_equal(got, want)  # type: ignore[arg-type]
            at += size


async def test_no_more_shards_are_open_than_said(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    most = 0
    take = Shelf.take

    async def counted(self: Shelf, *args: Any) -> Any:
        nonlocal most
        found = await take(self, *args)
        most = max(most, len(self._held))
        return found

    monkeypatch.setattr(Shelf, "take", counted)
    async with open_data_set(library, "set", "train", prefetch=2) as reader:
        assert sorted(await rows(reader)) == list(range(COUNT))
    assert most == 6


async def test_the_next_shards_are_fetched_while_the_consumer_computes(library: Library) -> None:
    fetched: list[str] = []
    fetch = library.fetch

    async def told(object: pb.Object, **how: Any) -> Path:
        fetched.append(object.sha256)
        return await fetch(object, **how)

    library.fetch = told  # type: ignore[method-assign]
    async with open_data_set(library, "set", "train", prefetch=3) as reader:
        stream = aiter(reader)
        await anext(stream)
        assert len(fetched) == 7
        await stream.aclose()  # type: ignore[attr-defined]


async def test_a_shard_outlives_its_file(library: Library, tmp_path: Path) -> None:
    async with open_data_set(library, "set", "train") as reader:
        stream = aiter(reader)
        first = await anext(stream)
        library.cache.clear()
        assert sorted([row_of(first)] + [row_of(sample) async for sample in stream]) == list(range(COUNT))
    row_of(first)


async def test_a_cache_that_is_too_small_only_costs_time(library: Library, tmp_path: Path) -> None:
    async with (
        opened(tmp_path, cache_dir=tmp_path / "small", cache_bytes=5000) as small,
        open_data_set(small, "set", "train") as reader,
    ):
        assert sorted(await rows(reader)) == list(range(COUNT))


async def test_a_shard_that_goes_before_it_is_opened_is_fetched_again(library: Library) -> None:
    fetch = library.fetch
    gone: set[str] = set()

    async def evicted(object: pb.Object, **how: Any) -> Path:
        path = await fetch(object, **how)
        if object.sha256 not in gone:
            gone.add(object.sha256)
            os.unlink(path)
        return path

    library.fetch = evicted  # type: ignore[method-assign]
    async with open_data_set(library, "set", "train") as reader:
        assert sorted(await rows(reader)) == list(range(COUNT))


async def test_what_cannot_be_fetched_ahead_is_said_when_it_is_wanted(library: Library) -> None:
    fetch, down = library.fetch, False

    async def failing(object: pb.Object, **how: Any) -> Path:
        if down:
            raise Unavailable("the store is gone")
        return await fetch(object, **how)

    library.fetch = failing  # type: ignore[method-assign]
    async with open_data_set(library, "set", "train", prefetch=0) as reader:
        whole = await rows(reader.samples())
        down = True
        with pytest.raises(Unavailable, match="is gone"):
            await rows(reader)
        stopped = reader.position
        down = False
        assert await rows(reader) == whole[stopped:]


async def test_damaged_and_missing_shards_are_named(library: Library) -> None:
    record = await library.show("set")
    shard = record.data_set.splits[0].shards[0].object
    await library.objects.put(f"sha256/{shard.sha256}", b"other bytes")
    async with open_data_set(library, "set", "train") as reader:
        with pytest.raises(Corrupt, match=shard.sha256):
            await rows(reader)
    await library.objects.delete(f"sha256/{shard.sha256}")
    async with open_data_set(library, "set", "train") as reader:
        with pytest.raises(NotFound, match=shard.sha256):
            await rows(reader)


async def test_an_absurd_number_of_samples_is_refused_before_anything_is_laid_out(library: Library) -> None:
    record = await library.show("set")
    split = record.data_set.splits[0]
    split.shards[0].samples += 1 << 40
    split.samples += 1 << 40
    with pytest.raises(Corrupt, match="do not hold the 1099511627"):
        async with open_record(library, record, "train"):
            pass


async def test_many_shards_go_into_an_index(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MOST_NAMED", 5)
    record = await add_arrays(library, "many", columns_of(COUNT), {"train": slice(None)})
    assert record.data_set.splits[0].HasField("index")
    assert not record.data_set.splits[0].shards
    async with open_data_set(library, "many", "train", shuffle=False) as reader:
        assert await rows(reader) == list(range(COUNT))
    assert not [problem async for problem in _problems(library)]


async def _problems(library: Library) -> AsyncIterator[Any]:
    for problem in await library.verify():
        yield problem


async def test_the_state_of_another_split_is_refused(library: Library) -> None:
    async with open_data_set(library, "set", "train") as train, open_data_set(library, "set", "test") as test:
        with pytest.raises(InvalidInput, match="another data set or split"):
            test.load_state_dict(train.state_dict())
        with pytest.raises(InvalidInput, match="lacks position"):
            test.load_state_dict({k: v for k, v in test.state_dict().items() if k != "position"})
        with pytest.raises(InvalidInput, match="sample 4 of 3"):
            test.load_state_dict({**test.state_dict(), "position": 4})


@pytest.mark.parametrize("how", [{"start": 5, "stop": 4}, {"start": -1}, {"stop": COUNT + 1}])
async def test_ranges_that_are_not_there_are_refused(library: Library, how: dict[str, int]) -> None:
    async with open_data_set(library, "set", "train") as reader:
        with pytest.raises(InvalidInput):
            reader.samples(**how)
        with pytest.raises(InvalidInput, match="batch of 0"):
            reader.batches(0)


async def test_what_is_not_there_is_named(library: Library) -> None:
    with pytest.raises(NotFound, match="did you mean 'train'"):
        async with open_data_set(library, "set", "trian"):
            pass
    with pytest.raises(NotFound):
        async with open_data_set(library, "sett", "train"):
            pass
    with pytest.raises(InvalidInput, match="prefetch"):
        async with open_data_set(library, "set", "train", prefetch=-1):
            pass


async def test_a_closed_reader_says_so(library: Library) -> None:
    async with open_data_set(library, "set", "train") as reader:
        pass
    with pytest.raises(FailedPrecondition, match="closed"):
        await rows(reader)


async def test_blocking_reads_from_another_thread_only(library: Library) -> None:
    async with open_data_set(library, "set", "train") as reader:
        with pytest.raises(FailedPrecondition, match="async for"):
            next(iter(reader.samples()))
        found = await asyncio.to_thread(lambda: [row_of(sample) for sample in reader])
        assert found == await rows(reader.samples(epoch=0))
        assert reader.epoch == 1


async def test_a_program_without_a_loop(library: Library, tmp_path: Path) -> None:
    async with open_data_set(library, "set", "train", seed=4) as reader:
        expected = await rows(reader)

    def whole() -> tuple[list[int], list[int]]:
        opening = open_library(**stores(tmp_path), seed=False)
        with reading(opening, "set", "train", seed=4) as reader:
            stacked = [batch["label"] for batch in reader.batches(10)]
            return [row_of(sample) for sample in reader], np.concatenate(stacked).tolist()  # type: ignore[arg-type]

    def closed() -> None:
        with reading(open_library(**stores(tmp_path), seed=False), "set", "train") as reader:
            pass
        next(iter(reader))

    found, labels = await asyncio.to_thread(whole)
    assert found == expected
    assert labels == [row % 10 for row in expected]
    with pytest.raises(FailedPrecondition, match="closed"):
        await asyncio.to_thread(closed)


async def test_a_fork_must_open_again(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_data_set(library, "set", "train") as reader:
        monkeypatch.setattr(os, "getpid", lambda: -1)
        with pytest.raises(FailedPrecondition, match="before a fork"):
            await asyncio.to_thread(lambda: next(iter(reader.samples())))


async def test_readers_of_one_shelf_may_be_cancelled(library: Library) -> None:
    """Two consumers of one reader: when the first gives up while both wait for a shard, the second gets it."""
    gate, fetch = asyncio.Event(), library.fetch

    async def waiting(object: pb.Object, **how: Any) -> Path:
        await gate.wait()
        return await fetch(object, **how)

    library.fetch = waiting  # type: ignore[method-assign]
    async with open_data_set(library, "set", "train") as reader:
        first = asyncio.create_task(rows(reader.samples()))
        second = asyncio.create_task(rows(reader.samples()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        gate.set()
        assert sorted(await second) == list(range(COUNT))
