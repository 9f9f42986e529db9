"""PyTorch's own DataLoader over a data set of the library, with workers that are processes."""

from __future__ import annotations

import asyncio
import os
import pickle
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.areas.streaming import StreamingDataSet, collate, tensors
from encephalon.core.errors import InvalidInput, NotFound
from encephalon.core.wire import dtype_of
from encephalon.library.datasets import DataSetOptions, add_arrays, add_data_set, arrays, open_data_set, shards
from encephalon.library.open import open_library
from tests.data import needs_raw_data, raw_data
from tests.unit.library.data_sets import columns_of, opened, stores

COUNT = 203

# Python 3.12 and later warn of every fork beside threads; that the workers do not need those of the parent is tested.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with the data set "set": 203 samples in 13 shards."""
    folder = tmp_path_factory.mktemp("library")

    async def fill() -> None:
        async with opened(folder) as library:
            await add_arrays(library, "set", columns_of(COUNT), {"train": slice(None)})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_ROWS", 16)
        patch.setattr(arrays, "BATCH_ROWS", 8)
        asyncio.run(fill())
    return folder


def streaming(place: Path, **how: Any) -> StreamingDataSet:
    return StreamingDataSet("set", "train", **{"seed": 5, **how}, **stores(place))


def captions(loader: DataLoader[Any]) -> list[list[str]]:
    """The rows of each batch, of which every modality must be the same row."""
    found = []
    for batch in loader:
        numbers = [int(text.removeprefix("row ")) for text in batch["caption"]]
        assert batch["image"].shape == (len(numbers), 4, 3)
        assert batch["image"].dtype == torch.uint8
        assert batch["image"][:, 0, 0].tolist() == numbers
        assert batch["label"].tolist() == [number % 10 for number in numbers]
        assert [len(sound) for sound in batch["sound"]] == [1 + number % 5 for number in numbers]
        found.append(batch["caption"])
    return found


def test_the_batches_are_the_same_for_any_number_of_workers(place: Path) -> None:
    data_set = streaming(place, batch_size=16)
    assert len(data_set) == COUNT
    # The first reads in this process, whose threads and connections the others then fork beside.
    found = [
        captions(DataLoader(data_set, batch_size=16, num_workers=workers, collate_fn=collate)) for workers in (0, 1, 2)
    ]
    assert found[0] == found[1] == found[2]
    assert sorted(text for batch in found[0] for text in batch) == sorted(f"row {n}" for n in range(COUNT))
    data_set.close()


def test_tensors_are_of_the_datatypes_of_the_modalities() -> None:
    sample = {"when": 1_700_000_000.123, "half": np.ones(2, dtype_of("BF16")), "small": 3, "text": "a"}
    described = [
        pb.Modality(name=name, datatype=datatype)
        for name, datatype in (("when", "FP64"), ("half", "BF16"), ("small", "UINT16"), ("text", "BYTES"))
    ]
    found = tensors(sample, described)
    assert found["when"].item() == 1_700_000_000.123
    assert (found["half"].dtype, found["half"].tolist()) == (torch.bfloat16, [1, 1])
    assert (found["small"].dtype, found["small"].shape, found["text"]) == (torch.uint16, (), "a")


def test_epochs_differ_and_workers_that_stay_see_them(place: Path) -> None:
    data_set = streaming(place, batch_size=16)
    loader = DataLoader(data_set, batch_size=16, num_workers=2, persistent_workers=True, collate_fn=collate)
    found = []
    for epoch in (0, 1, 1):
        data_set.set_epoch(epoch)
        found.append([text for batch in captions(loader) for text in batch])
    assert found[1] == found[2] != found[0]
    assert sorted(found[0]) == sorted(found[1])
    data_set.set_epoch(1, start=90)
    assert len(data_set) == COUNT - 90
    assert [text for batch in captions(loader) for text in batch] == found[1][90:]


def test_each_copy_goes_on_where_it_stopped(place: Path) -> None:
    """What torchdata's StatefulDataLoader does with the data set of each worker."""
    whole = [sample["caption"] for sample in streaming(place)]
    first = streaming(place)
    stream = iter(first)
    begun = [next(stream)["caption"] for _ in range(77)]
    state = first.state_dict()
    second = streaming(place)
    second.load_state_dict(state)
    assert begun + [sample["caption"] for sample in second] == whole
    assert [sample["caption"] for sample in second] == whole
    with pytest.raises(InvalidInput, match="belongs to 'test'"):
        second.load_state_dict({**state, "split": "test"})


def test_processes_share_the_batches(place: Path) -> None:
    whole = captions(DataLoader(streaming(place, batch_size=16), batch_size=16, collate_fn=collate))
    parts = [streaming(place, batch_size=16, rank=rank, world=3) for rank in range(3)]
    found = [captions(DataLoader(part, batch_size=16, num_workers=0, collate_fn=collate)) for part in parts]
    assert found == [whole[rank::3] for rank in range(3)]
    assert sum(len(part) for part in parts) == COUNT


def test_tensors_may_be_written_to_and_transformed(place: Path) -> None:
    def brighter(sample: dict[str, Any]) -> Any:
        sample["image"] += 1
        return sample["image"].float().mean()

    found = list(streaming(place, transform=brighter, shuffle=False))
    assert [round(float(mean)) for mean in found] == [(number % 256) + 1 for number in range(COUNT)]


def test_all_epochs_see_one_version(place: Path) -> None:
    data_set = streaming(place)
    before = [sample["caption"] for sample in data_set]

    async def again() -> None:
        async with opened(place) as library:
            await add_arrays(library, "set", columns_of(3), {"train": slice(None)}, description="another")

    asyncio.run(again())
    data_set.close()
    assert [sample["caption"] for sample in data_set] == before
    with pytest.raises(NotFound):
        StreamingDataSet("none", "train", **stores(place))


def test_a_copy_in_another_process_opens_the_library_itself(place: Path) -> None:
    """As DataLoader does with workers that are spawned."""
    data_set = streaming(place)
    before = [sample["caption"] for sample in data_set]
    copy = pickle.loads(pickle.dumps(data_set))  # noqa: S301
    assert [sample["caption"] for sample in copy] == before


def test_bad_places_are_refused(place: Path) -> None:
    data_set = streaming(place)
    for epoch, start in ((-1, 0), (0, -1), (0, COUNT + 1)):
        with pytest.raises(InvalidInput):
            data_set.set_epoch(epoch, start)
    for how in ({"batch_size": 0}, {"rank": 1, "world": 1}):
        with pytest.raises(InvalidInput):
            streaming(place, **how)


@needs_raw_data
async def test_real_recordings_in_a_folder_per_digit(tmp_path: Path) -> None:
    """Two hundred of the Free Spoken Digit Dataset, as somebody would lay them out."""
    raw = raw_data()
    assert raw is not None
    recordings = sorted((raw / "fsdd" / "recordings").glob("*_[0-3].wav"))[:200]
    for path in recordings:
        folder = tmp_path / "digits" / path.name[0]
        folder.mkdir(parents=True, exist_ok=True)
        os.symlink(path, folder / path.name)
    async with opened(tmp_path / "library") as library:
        options = DataSetOptions(split=0.8, seconds=1.0)
        record = await add_data_set(library, tmp_path / "digits", "digits", options)
        assert sum(split.samples for split in record.data_set.splits) == len(recordings)
        per_digit = Counter(path.name[0] for path in recordings)
        counts = record.data_set.statistics
        assert {digit: counts[f"train.label.count.{digit}"] for digit in per_digit} == {
            digit: round(0.8 * count) for digit, count in per_digit.items()
        }
        audio, label = record.data_set.modalities
        assert (audio.sample_rate, list(audio.shape)) == (8000, [8000])
        assert list(label.classes) == sorted({path.name[0] for path in recordings})
        async with open_data_set(library, "digits", "test") as reader:
            batches = [batch async for batch in reader.batches(16)]
        assert {len(batch["label"]) for batch in batches[:-1]} == {16}
        assert all(np.abs(np.asarray(batch["audio"])).max(axis=1).min() > 500 for batch in batches)


@needs_raw_data
@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_avmnist_from_its_raw_files(tmp_path: Path) -> None:
    options = DataSetOptions(raw=raw_data(), parameters={"train_pairs": 500, "test_pairs": 300}, seed=3)
    async with open_library(**stores(tmp_path), seed=False) as library:
        record = await add_data_set(library, "avmnist", "avmnist", options)
        assert [split.samples for split in record.data_set.splits] == [500, 300]
        assert '"seed": 3' in record.data_set.parameters
        async with open_data_set(library, "avmnist", "test", shuffle=False) as reader:
            labels = [sample["label"] async for sample in reader]
    assert labels[:10] == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]  # as MNIST's test file begins
