"""Data sets are the same on every pair of stores."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from encephalon.areas.streaming import StreamingDataSet
from encephalon.library.datasets import add_arrays, avmnist_modalities, open_data_set
from encephalon.library.open import open_library
from encephalon.library.sample import load_sample

FOUND: set[str] = set()
"""The shard's digest on each pair of stores."""


@pytest.fixture(params=["sqlite+folder", "etcd+juicefs", "etcd+seaweedfs"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    if request.param == "sqlite+folder":
        return f"sqlite://{tmp_path}/state.db", f"folder://{tmp_path}/objects"
    objects = request.getfixturevalue(f"{request.param.partition('+')[2]}_url")
    return request.getfixturevalue("etcd_url"), f"{objects}-{uuid.uuid4().hex[:8]}"


async def test_a_data_set_goes_in_and_comes_out(stores: tuple[str, str], tmp_path: Path) -> None:
    sample = load_sample()
    columns = {"image": sample.images, "audio": sample.audio, "label": sample.labels}
    splits = {"train": slice(0, 256), "test": slice(256, None)}
    name = f"avmnist-{uuid.uuid4().hex}"
    how = {"namespace": uuid.uuid4().hex, "seed": False}
    async with open_library(*stores, cache_dir=tmp_path / "writer", **how) as library:  # type: ignore[arg-type]
        record = await add_arrays(library, name, columns, splits, avmnist_modalities(8000))
        assert await add_arrays(library, name, columns, splits, avmnist_modalities(8000)) == record
    FOUND.update(shard.object.sha256 for shard in record.data_set.splits[0].shards)
    assert len(FOUND) == 1
    async with (
        open_library(*stores, cache_dir=tmp_path / "reader", **how) as library,  # type: ignore[arg-type]
        open_data_set(library, name, "train", seed=1) as reader,
    ):
        found = [one async for one in reader]
        assert len(found) == 256
        pictures = {picture.tobytes(): at for at, picture in enumerate(sample.images)}
        for one in found:
            at = pictures[np.asarray(one["image"]).tobytes()]
            assert one["label"] == sample.labels[at]
            np.testing.assert_array_equal(one["audio"], sample.audio[at])  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_that_are_forked_read_from_every_store(stores: tuple[str, str], tmp_path: Path) -> None:
    """gRPC does not work behind a fork, and etcd's client needs it."""
    sample = load_sample()

    async def fill() -> None:
        async with open_library(*stores, namespace="forked", cache_dir=tmp_path / "writer", seed=False) as library:
            columns = {"image": sample.images, "label": sample.labels}
            await add_arrays(library, "forked", columns, {"train": slice(None)})

    asyncio.run(fill())
    data_set = StreamingDataSet(
        "forked",
        "train",
        batch_size=32,
        state=stores[0],
        objects=stores[1],
        namespace="forked",
        cache_dir=tmp_path / "c",
    )
    labels = [
        torch.cat(
            [batch["label"] for batch in DataLoader(data_set, batch_size=32, num_workers=workers, timeout=timeout)]
        )
        for workers, timeout in ((2, 30), (0, 0), (2, 30))
    ]
    assert torch.equal(labels[0], labels[1])
    assert torch.equal(labels[0], labels[2])
    assert sorted(labels[0].tolist()) == sorted(sample.labels.tolist())
    data_set.close()
