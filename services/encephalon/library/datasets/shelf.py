"""Shards that are open: memory-mapped from the library's cache, the next ones fetched ahead."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import itertools
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import Corrupt, FailedPrecondition, Unavailable
from encephalon.library.datasets.arrow import arrow
from encephalon.library.datasets.columns import Column, Values, column_of, schema_of
from encephalon.library.datasets.messages import unfolds

__all__ = ["Fetches", "OpenShard", "Shelf"]

ATTEMPTS: Final = 5
"""To open what the cache gave: another process may evict it in between."""


class Fetches(Protocol):
    """What of `library.Library` is used here."""

    async def fetch(self, object: pb.Object) -> Path: ...


class OpenShard:
    """A mapped shard. It stays readable when its file is deleted, and is closed when nobody holds it or a view of it.

    Raises `Corrupt` when the file is no shard of these columns with so many samples.
    """

    def __init__(self, path: Path, columns: Sequence[Column], shard: pb.Shard) -> None:
        pa = arrow()
        self._columns, self._digest = columns, shard.object.sha256
        try:
            mapped = pa.memory_map(str(path))
            if unfolds(memoryview(mapped.read_buffer())):
                raise ValueError("it is compressed")
            file = pa.ipc.open_file(mapped)
            self._batches = [file.get_batch(at) for at in range(file.num_record_batches)]
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._corrupt(f"is no Arrow file that can be mapped: {error}") from None
        if not file.schema.equals(schema_of(columns)):
            raise self._corrupt("has other columns than its record names")
        self._starts = [0, *itertools.accumulate(batch.num_rows for batch in self._batches)]
        self._decoded: dict[int, dict[str, Values]] = {}
        if self._starts[-1] != shard.samples:
            raise self._corrupt(f"has {self._starts[-1]} samples, its record says {shard.samples}")

    def batch_of(self, row: int) -> tuple[Mapping[str, Values], int]:
        """The record batch that holds a row, and its place there."""
        at = bisect.bisect_right(self._starts, row) - 1
        if at not in self._decoded:
            self._decoded[at] = self._decode(self._batches[at])
        return self._decoded[at], row - self._starts[at]

    def _decode(self, batch: Any) -> dict[str, Values]:
        try:
            # Offsets that lead out of their buffers would be read without asking.
            batch.validate(full=True)
            if any(array.null_count for array in batch.columns):
                raise ValueError("values are missing")
            return {column.name: column.decode(batch.column(at)) for at, column in enumerate(self._columns)}
        except (arrow().ArrowException, OSError, ValueError) as error:
            raise self._corrupt(f"is damaged: {error}") from None

    def _corrupt(self, what: str) -> Corrupt:
        return Corrupt(f"shard sha256:{self._digest} {what}; add the data set again", sha256=self._digest)


class Shelf:
    """The shards of a split, at most `capacity` of them open or on their way beside those that are waited for. Belongs
    to one event loop."""

    def __init__(
        self, library: Fetches, shards: Sequence[pb.Shard], modalities: Iterable[pb.Modality], capacity: int
    ) -> None:
        self._library, self._shards, self._capacity = library, shards, capacity
        self._columns = [column_of(modality) for modality in modalities]
        self._held: OrderedDict[int, asyncio.Task[OpenShard]] = OrderedDict()
        self._awaited: Counter[int] = Counter()
        self._closed = False

    async def take(self, wanted: Sequence[int], soon: Sequence[int] = ()) -> dict[int, OpenShard]:
        """Opens `wanted`, and begins with `soon` without waiting. Raises what fetching and opening raise, and
        `FailedPrecondition` once the shelf is closed."""
        if self._closed:
            raise FailedPrecondition("the data set is closed; read it within its block")
        self._awaited.update(wanted)
        try:
            tasks = [self._task(at) for at in wanted]
            for at in soon:
                self._task(at)
            self._let_go({*wanted, *soon})
            # Unlike `gather`, `wait` leaves the tasks alone when this call is cancelled: others may want them.
            await asyncio.wait(tasks)
            return {at: task.result() for at, task in zip(wanted, tasks, strict=True)}
        finally:
            self._awaited.subtract(wanted)

    async def close(self) -> None:
        """Twice is harmless."""
        self._closed = True
        tasks = list(self._held.values())
        self._held.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _task(self, at: int) -> asyncio.Task[OpenShard]:
        task = self._held.get(at)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            # What could not be fetched ahead is tried again when it is wanted.
            task = asyncio.create_task(self._open(self._shards[at]), name=f"shard {at}")
            task.add_done_callback(_looked_at)
            self._held[at] = task
        self._held.move_to_end(at)
        return task

    def _let_go(self, keep: set[int]) -> None:
        for at in list(self._held):
            if len(self._held) <= self._capacity:
                return
            if at not in keep and self._awaited[at] <= 0:
                self._held.pop(at).cancel()

    async def _open(self, shard: pb.Shard) -> OpenShard:
        for _ in range(ATTEMPTS):
            path = await self._library.fetch(shard.object)
            with contextlib.suppress(FileNotFoundError):
                return OpenShard(path, self._columns, shard)
        raise Unavailable(
            f"the cache has lost shard sha256:{shard.object.sha256} {ATTEMPTS} times before it could be opened; give "
            "it more bytes"
        )


def _looked_at(task: asyncio.Task[OpenShard]) -> None:
    """The error of a shard that was fetched ahead is raised when the shard is wanted, if it ever is."""
    if not task.cancelled():
        task.exception()
