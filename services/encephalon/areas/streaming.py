"""A data set of the library as PyTorch reads one: tensors for a DataLoader, whatever its number of workers."""

from __future__ import annotations

import os
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.blocking import Loop
from encephalon.core.errors import InvalidInput
from encephalon.core.wire import dtype_of
from encephalon.library.datasets import Sample, StreamingReader, open_record, reading
from encephalon.library.datasets.order import Share
from encephalon.library.library import Library
from encephalon.library.open import default_cache_dir, open_library
from encephalon.library.records import Reference
from encephalon.library.store.cache import Cache
from encephalon.state import embedded, open_key_value, open_objects

__all__ = ["StreamingDataSet", "collate", "tensors"]

Tensors = dict[str, Any]
"""Modality to tensor; text stays text."""


class StreamingDataSet(IterableDataset[Tensors]):
    """The samples of a split as dictionaries of tensors, in an order that depends on `seed` and epoch only.

        data_set = StreamingDataSet("avmnist", "train", batch_size=64, state="sqlite:///...", objects="folder:///...")
        for epoch in range(3):
            data_set.set_epoch(epoch)
            for batch in DataLoader(data_set, batch_size=64, num_workers=2): ...

    Each worker opens the object store itself. With the DataLoader's own `batch_size` the batches are the same, in the
    same order, for any number of workers; `collate` keeps what has several shapes as lists. `state`, `objects`,
    `namespace` and `cache_dir` are those of `open_library`; the version is resolved once, so that all epochs see the
    same. `rank` of `world` processes takes its share of batches. Raises as `open_data_set` does.
    """

    def __init__(
        self,
        reference: str,
        split: str,
        *,
        batch_size: int = 1,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world: int = 1,
        prefetch: int = 2,
        transform: Callable[[Tensors], Any] | None = None,
        state: str | None = None,
        objects: str | None = None,
        namespace: str = "default",
        cache_dir: Path | None = None,
    ) -> None:
        if batch_size < 1 or not 0 <= rank < world:
            raise InvalidInput(f"batches of {batch_size} for process {rank} of {world} are none; ranks count from 0")
        stores = {"state": state, "objects": objects, "namespace": namespace, "cache_dir": cache_dir}
        embedded_in = embedded.default_state_dir()
        self._state = state or embedded.key_value_url(embedded_in)
        self._objects = objects or embedded.objects_url(embedded_in)
        self._namespace, self._cache_dir = namespace, cache_dir
        self._split, self._options = split, {"seed": seed, "shuffle": shuffle, "prefetch": prefetch}
        self._block, self._rank, self._world, self._transform = batch_size, rank, world, transform
        # Epoch and first sample, in shared memory: workers that outlive an epoch see them change.
        self._at: torch.Tensor = torch.zeros(2, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._given = 0
        self._skip = 0
        self._opened: _Opened | None = None
        with reading(open_library(**stores, seed=False), reference, split) as reader:  # type: ignore[arg-type]
            self._record = reader.record
            self._length = len(reader)
            self.modalities = list(reader.modalities)
            self.classes = list(reader.classes)
        self._reference = str(Reference.of(self._record.id))

    def __len__(self) -> int:
        """Samples that this process takes of the epoch, from where it begins."""
        return len(Share(int(self._at[1]), self._length, self._rank, self._world, self._block))

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        workers, number = (1, 0) if info is None else (info.num_workers, info.id)
        epoch, start = (int(value) for value in self._at)
        stream = self._reader().worker(
            number * self._world + self._rank,
            workers * self._world,
            start,
            block=self._block,
            skip=self._skip,
            epoch=epoch,
        )
        self._given, self._skip = self._skip, 0
        for sample in stream:
            self._given += 1
            ready = tensors(sample, self.modalities)
            yield ready if self._transform is None else self._transform(ready)
        self._given = 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """What the next iteration gives: an epoch, from sample `start` of all processes on."""
        if epoch < 0 or not 0 <= start <= self._length:
            raise InvalidInput(f"sample {start} of epoch {epoch} is not there; an epoch has {self._length} samples")
        self._at[0], self._at[1] = epoch, start
        self._given, self._skip = 0, 0

    def state_dict(self) -> dict[str, Any]:
        """Where this copy is (a worker's, or the only one): what torchdata's StatefulDataLoader keeps of each. It
        is for the same number of workers; `set_epoch(epoch, start)` goes on with any."""
        epoch, start = (int(value) for value in self._at)
        return {"data_set": self._reference, "split": self._split, "epoch": epoch, "start": start, "given": self._given}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises `InvalidInput` for the state of another data set, version or split."""
        if (state.get("data_set"), state.get("split")) != (self._reference, self._split):
            raise InvalidInput(
                f"the state belongs to '{state.get('split')}' of {state.get('data_set')}, this is '{self._split}' of "
                f"{self._reference}"
            )
        self.set_epoch(int(state["epoch"]), int(state["start"]))
        self._given = self._skip = int(state["given"])

    def close(self) -> None:
        """Closes what this process has opened; iterating opens it again."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def _reader(self) -> StreamingReader:
        if self._opened is None or self._opened.process != os.getpid():
            self._opened = _Opened(self._reading())
        return self._opened.reader

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[StreamingReader]:
        """Needs the objects only. The other store stays closed: etcd's client hangs in a process that was forked."""
        cache = Cache(self._cache_dir or default_cache_dir())
        try:
            async with open_objects(self._objects) as objects:
                library = Library(open_key_value(self._state), objects, namespace=self._namespace, cache=cache)
                async with open_record(library, self._record, self._split, **self._options) as reader:  # type: ignore[arg-type]
                    yield reader
        finally:
            cache.close()


class _Opened:
    """A reader and the loop that serves it, until it is closed or forgotten.

    When the process ends it is left as it is: the threads that would close it are gone by then.
    """

    def __init__(self, manager: AbstractAsyncContextManager[StreamingReader]) -> None:
        self.process = os.getpid()
        loop = Loop().__enter__()
        try:
            self.reader = loop.wait(_entered(manager))
        except BaseException:
            loop.__exit__()
            raise
        self.close = weakref.finalize(self, _close, loop, manager, self.process)
        self.close.atexit = False


_left_behind: list[object] = []


def _close(loop: Loop, manager: AbstractAsyncContextManager[StreamingReader], process: int) -> None:
    if process != os.getpid():
        # A fork has the parent's reader without the thread that would close it, and must not even let go of it.
        _left_behind.append((loop, manager))
        return
    try:
        loop.wait(_left(manager))
    finally:
        loop.__exit__()


async def _entered(manager: AbstractAsyncContextManager[StreamingReader]) -> StreamingReader:
    return await manager.__aenter__()


async def _left(manager: AbstractAsyncContextManager[StreamingReader]) -> None:
    await manager.__aexit__(None, None, None)


def tensors(sample: Sample, modalities: Iterable[pb.Modality]) -> Tensors:
    """Of the modalities' datatypes. Copies: the tensors may be written to, and do not hold the shard."""
    return {one.name: _tensor(sample[one.name], one.datatype) for one in modalities}


def collate(samples: list[Tensors]) -> dict[str, Any]:
    """For DataLoader: stacks what has one shape, and keeps the rest as lists (PyTorch's own refuses it)."""
    return {name: _stacked([sample[name] for sample in samples]) for name in samples[0]}


def _tensor(value: Any, datatype: str) -> Any:
    if datatype == "BYTES":
        return value
    array = np.array(value, dtype_of(datatype))
    # PyTorch takes no bfloat16 of numpy's, which has none of its own.
    return (
        torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16) if datatype == "BF16" else torch.from_numpy(array)
    )


def _stacked(values: list[Any]) -> Any:
    alike = all(isinstance(value, torch.Tensor) and value.shape == values[0].shape for value in values)
    return torch.stack(values) if alike else values
