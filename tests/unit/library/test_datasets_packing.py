"""Shards on their way into the library: bounded, the same each time, and described by what is in them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import Corrupt, FailedPrecondition, InvalidInput
from encephalon.library import avmnist
from encephalon.library.avmnist import digests
from encephalon.library.datasets import (
    add_arrays,
    add_data_set,
    arrays,
    avmnist_modalities,
    open_data_set,
    packing,
    shards,
    silent,
)
from encephalon.library.datasets.arrays import array_source
from encephalon.library.datasets.source import Batch, Broken, Part, Source
from encephalon.library.datasets.statistics import Statistics
from encephalon.library.sample import load_sample
from tests.unit.library.data_sets import columns_of, opened, tiny_shards
from tests.unit.library.raw_folder import make_raw_folder


class Kept:
    """Takes what is put, as the library does."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.digests: list[str] = []
        self.folder: Path | None = None

    async def put_file(self, path: Path) -> pb.Object:
        self.folder = path.parent
        return await self.put_bytes(path.read_bytes())  # noqa: ASYNC240

    async def put_bytes(self, data: bytes) -> pb.Object:
        self.sizes.append(len(data))
        self.digests.append(hashlib.sha256(data).hexdigest())
        return pb.Object(sha256=self.digests[-1], size=len(data))


async def test_shards_are_of_bounded_size_and_always_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 500_000)
    monkeypatch.setattr(arrays, "BATCH_BYTES", 50_000)
    sample = load_sample()
    columns: dict[str, Any] = {"image": sample.images, "audio": sample.audio, "label": sample.labels}
    source = array_source(columns, {"all": slice(None)}, avmnist_modalities(8000))
    first, second = Kept(), Kept()
    body = await packing.pack(first, source, silent)
    assert await packing.pack(second, source, silent) == body
    assert first.digests == second.digests
    assert len(first.sizes) == len(body.splits[0].shards) > 8
    assert max(first.sizes) < 600_000
    assert sum(shard.samples for shard in body.splits[0].shards) == body.splits[0].samples == 300
    assert first.folder is not None
    assert not first.folder.exists()


async def test_samples_above_the_size_of_a_batch_have_one_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 2000)
    monkeypatch.setattr(arrays, "BATCH_BYTES", 100)
    source = array_source({"x": np.zeros((5, 1000), np.uint8)}, {"all": slice(None)})
    kept = Kept()
    await packing.pack(kept, source, silent)
    assert len(kept.sizes) == 3


@given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=9), min_size=1, max_size=9))
def test_statistics_are_those_of_all_values(batches: list[list[float]]) -> None:
    found = Statistics([pb.Modality(name="x", type="tensor", datatype="FP32", shape=[])])
    for batch in batches:
        found.add("x", np.array(batch, np.float32))
    every = np.concatenate([np.array(batch, np.float32) for batch in batches]).astype(np.float64)
    expected = {"x.mean": every.mean(), "x.std": every.std(), "x.min": every.min(), "x.max": every.max()}
    assert found.as_dict() == pytest.approx(expected, rel=1e-6, abs=1e-3)


async def test_statistics_of_the_sample() -> None:
    sample = load_sample()
    columns: dict[str, Any] = {"image": sample.images, "audio": sample.audio, "label": sample.labels}
    body = await packing.pack(Kept(), array_source(columns, {"a": slice(0, 100)}, avmnist_modalities(8000)), silent)
    found = dict(body.statistics)
    assert found["a.image.mean"] == pytest.approx(sample.images[:100].mean())
    assert found["a.audio.std"] == pytest.approx(sample.audio[:100].astype(float).std())
    assert found["a.audio.max"] == sample.audio[:100].max()
    counts = np.bincount(sample.labels[:100])
    assert [found[f"a.label.count.{digit}"] for digit in range(10)] == counts.tolist()


def test_statistics_leave_out_what_is_no_number() -> None:
    found = Statistics([pb.Modality(name=name, type="tensor", datatype="FP32") for name in "xy"])
    found.add("x", np.array([1, np.nan, np.inf, 3], np.float32))
    found.add("y", np.array([np.nan], np.float32))
    assert found.as_dict() == {"x.mean": 2, "x.std": 1, "x.min": 1, "x.max": 3}


async def test_many_classes_are_not_counted_one_by_one() -> None:
    for classes, counted in ((1500, True), (2000, False)):
        modality = pb.Modality(name="label", type="label", datatype="INT64", classes=map(str, range(classes)))
        source = array_source({"label": np.arange(10)}, {"train": slice(None)}, [modality])
        body = await packing.pack(Kept(), source, silent)
        assert ("train.label.count.5" in body.statistics) is counted


def failing(count: int, broken: Broken) -> Source:
    """Batches of one row; the last proves to be broken."""

    def batches() -> Iterator[Batch]:
        for number in range(count - 1):
            yield {"x": np.array([number])}
        broken.add(count - 1, "the last is broken")
        yield {"x": np.zeros(0, np.int64)}

    modality = pb.Modality(name="x", type="tensor", datatype="INT64")
    return Source(recipe="test", modalities=[modality], parts=[Part("train", count, batches)], broken=broken)


async def test_nothing_is_put_when_the_last_file_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_ROWS", 2)
    kept = Kept()
    with pytest.raises(InvalidInput, match="1 of 11 samples"):
        await packing.pack(kept, failing(11, Broken()), silent)
    assert not kept.sizes
    body = await packing.pack(kept, failing(11, Broken(skip=True)), silent)
    assert (body.splits[0].samples, body.statistics["left_out"]) == (10, 1)


async def test_large_sets_are_put_while_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_ROWS", 1)
    monkeypatch.setattr(packing, "SPOOL_BYTES", 1)
    kept, broken = Kept(), Broken()
    with pytest.raises(InvalidInput):
        await packing.pack(kept, failing(5, broken), silent)
    assert len(kept.sizes) == 3
    assert kept.folder is not None
    assert not kept.folder.exists()


async def test_a_thousand_classes_in_two_splits_are_one_record(tmp_path: Path) -> None:
    classes = [f"n{number:08}" for number in range(1000)]
    label = pb.Modality(name="label", type="label", datatype="INT64", classes=classes)
    async with opened(tmp_path) as library:
        splits = {"train": slice(None), "test": slice(0, 10)}
        record = await add_arrays(library, "imagenet", {"label": np.arange(1000)}, splits, [label])
    assert len(record.data_set.modalities[0].classes) == 1000
    assert not record.data_set.statistics


def test_labels_in_a_list_are_classes_too() -> None:
    source = array_source({"label": [0, 2, 1], "x": [1.5, 2.5, 0.5]}, {"train": slice(None)})
    assert [(one.type, one.datatype, list(one.classes)) for one in source.modalities] == [
        ("label", "INT64", ["0", "1", "2"]),
        ("tensor", "FP64", []),
    ]


def test_labels_that_are_no_classes_are_refused() -> None:
    with pytest.raises(InvalidInput, match="'label' numbers classes up to 1000000000, expected less than 10000"):
        array_source({"label": np.array([10**9])}, {"train": slice(None)})


def test_batches_of_large_values_of_several_shapes_are_small() -> None:
    columns: dict[str, Any] = {"x": [np.zeros(1 << 20, np.uint8)] * 20, "text": ["a" * (1 << 20)] * 20}
    (part,) = array_source(columns, {"all": slice(None)}).parts
    assert [len(batch["x"]) for batch in part.batches()] == [4] * 5


async def test_a_split_without_samples_is_refused() -> None:
    source = array_source({"x": np.arange(3)}, {"train": slice(None), "test": slice(0, 0)})
    with pytest.raises(InvalidInput, match="split 'test' has no sample"):
        await packing.pack(Kept(), source, silent)


async def test_cancelling_waits_for_the_thread_and_leaves_no_files() -> None:
    reached, idle = threading.Event(), threading.Event()
    kept = Kept()

    def batches() -> Iterator[Batch]:
        try:
            while True:
                reached.set()
                yield {"x": np.arange(10)}
        finally:
            idle.set()

    modality = pb.Modality(name="x", type="tensor", datatype="INT64")
    source = Source(recipe="test", modalities=[modality], parts=[Part("train", 10, batches)])
    task = asyncio.create_task(packing.pack(kept, source, silent))
    await asyncio.to_thread(reached.wait, 10)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert idle.wait(10)


async def test_the_same_data_set_twice_is_one_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_shards(monkeypatch, 10)
    async with opened(tmp_path) as library:
        fields = {"description": "numbers", "licence": "CC0-1.0", "tags": {"of": "us"}}
        first = await add_arrays(library, "set", columns_of(30), {"train": slice(None)}, parameters={"n": 30}, **fields)
        again = await add_arrays(library, "set", columns_of(30), {"train": slice(None)}, parameters={"n": 30}, **fields)
        other = await add_arrays(library, "set", columns_of(31), {"train": slice(None)}, parameters={"n": 31}, **fields)
        async with library.writing("two") as writer:
            third = await add_arrays(writer, "other", columns_of(30), {"train": slice(None)})
        assert first == again
        assert (first.id.version, other.id.version, third.id.version) == (1, 2, 1)
        assert (first.description, first.licence, dict(first.tags)) == ("numbers", "CC0-1.0", {"of": "us"})
        assert (first.data_set.recipe, json.loads(first.data_set.parameters)) == ("arrays", {"n": 30})
        assert [one.type for one in first.data_set.modalities] == ["tensor", "tensor", "text", "tensor", "label"]


async def test_a_built_avmnist_goes_in_as_it_is(tmp_path: Path) -> None:
    raw = make_raw_folder(tmp_path / "raw")
    parameters = avmnist.Parameters(train_pairs=60, test_pairs=20, window_seconds=0.2, seed=2)
    built = avmnist.build(raw, list(digests.scan(raw)), tmp_path / "built", parameters)
    async with opened(tmp_path / "library") as library:
        record = await add_data_set(library, built, "avmnist")
        assert record.data_set.recipe == "avmnist"
        assert json.loads(record.data_set.parameters) == parameters.as_dict()
        assert "CC-BY-SA" in record.licence
        for split, count in (("train", 60), ("test", 20)):
            pairs = avmnist.open_split(built, split)  # type: ignore[arg-type]
            async with open_data_set(library, "avmnist", split, shuffle=False) as reader:
                found = [sample async for sample in reader]
            assert len(found) == count
            np.testing.assert_array_equal([sample["audio"] for sample in found], pairs.audio)
            np.testing.assert_array_equal([sample["image"] for sample in found], pairs.images)
            assert [sample["label"] for sample in found] == pairs.labels.tolist()
        (built / "test-audio.npy").write_bytes(b"other")
        with pytest.raises(Corrupt, match=r"test-audio\.npy"):
            await add_data_set(library, built, "avmnist")


async def test_without_pyarrow_a_sentence_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(FailedPrecondition, match=r"pip install 'encephalon\[data\]'"):
        await packing.pack(Kept(), array_source({"x": np.zeros(3)}, {"train": slice(None)}), silent)
    async with opened(tmp_path) as library:
        with pytest.raises(FailedPrecondition, match=r"pip install 'encephalon\[data\]'"):  # and not that it is missing
            await add_data_set(library, tmp_path / "none", "set")


def label(classes: str) -> pb.Modality:
    return pb.Modality(name="x", type="label", datatype="INT64", classes=classes)


@pytest.mark.parametrize(
    ("columns", "splits", "modalities"),
    [
        ({}, {"a": slice(None)}, None),
        ({"x": np.zeros(3), "y": np.zeros(4)}, {"a": slice(None)}, None),
        ({"x": np.zeros(3)}, {"a": [3]}, None),
        ({"x": np.zeros(3)}, {}, None),
        ({"x": np.zeros(3)}, {"a": [-1]}, None),
        ({"x": np.zeros(3)}, {"a": np.array([True, False, True])}, None),
        ({"x": np.zeros(3)}, {"a": slice(None)}, [pb.Modality(name="y", datatype="FP64")]),
        ({"x": np.arange(3)}, {"a": slice(None)}, [label("ab")]),
        ({"x": np.arange(3) - 1}, {"a": slice(None)}, [label("abc")]),
        ({"x": np.zeros(3)}, {"a": slice(None)}, [pb.Modality(name="x", datatype="FP32")]),
        ({"x": np.zeros(3, np.complex128)}, {"a": slice(None)}, None),
    ],
)
async def test_arrays_that_do_not_fit_are_refused(columns: Any, splits: Any, modalities: Any) -> None:
    with pytest.raises(InvalidInput):
        await packing.pack(Kept(), array_source(columns, splits, modalities), silent)
