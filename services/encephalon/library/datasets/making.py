"""Samples and batches out of shards that are open."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.wire import dtype_of
from encephalon.library.datasets.columns import Value, Values
from encephalon.library.datasets.order import Places
from encephalon.library.datasets.shelf import OpenShard

__all__ = ["Batched", "Sample", "batches_of", "samples_of"]

Sample = dict[str, Value]
"""Modality to value. Arrays are read-only views of the mapped shard: copy what is to be changed."""

Batched = dict[str, Values]
"""Modality to array [batch, ...]; a list where shapes differ or values are text."""

Shards = dict[int, OpenShard]


def samples_of(modalities: Sequence[pb.Modality]) -> Callable[[Shards, Places], Iterator[Sample]]:
    scalars = {one.name for one in modalities if not one.shape and one.datatype != "BYTES"}

    def make(shards: Shards, places: Places) -> Iterator[Sample]:
        for shard, row in zip(places.shard.tolist(), places.row.tolist(), strict=True):
            columns, at = shards[shard].batch_of(row)
            sample: dict[str, Any] = {name: values[at] for name, values in columns.items()}
            for name in scalars:
                sample[name] = sample[name].item()
            yield sample

    return make


def batches_of(
    modalities: Sequence[pb.Modality], size: int, total: int
) -> Callable[[Shards, Places], Iterator[Batched]]:
    """Of `size` samples each; the last of `total` may be smaller. Batches reach over stretches."""
    batch, taken = _Batch(modalities, min(size, total)), 0

    def make(shards: Shards, places: Places) -> Iterator[Batched]:
        nonlocal batch, taken
        for shard, row in zip(places.shard.tolist(), places.row.tolist(), strict=True):
            columns, at = shards[shard].batch_of(row)
            batch.add(columns, at)
            taken += 1
            if batch.filled == size or taken == total:
                yield batch.columns()
                batch = _Batch(modalities, min(size, total - taken))

    return make


class _Batch:
    def __init__(self, modalities: Sequence[pb.Modality], size: int) -> None:
        self.filled = 0
        self._values: dict[str, Any] = {
            one.name: np.empty((size, *one.shape), dtype_of(one.datatype)) if _stacks(one) else [None] * size
            for one in modalities
        }

    def add(self, columns: Any, at: int) -> None:
        for name, values in self._values.items():
            values[self.filled] = columns[name][at]
        self.filled += 1

    def columns(self) -> Batched:
        return self._values


def _stacks(modality: pb.Modality) -> bool:
    return modality.datatype != "BYTES" and -1 not in modality.shape
