"""Writes the splits of a source as shards, and puts them into the library."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Final, Protocol, TypeVar

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import Cancelled, InvalidInput
from encephalon.library.avmnist.progress import Progress
from encephalon.library.datasets.columns import Column, column_of
from encephalon.library.datasets.shards import ShardFile
from encephalon.library.datasets.source import Batch, Broken, Part, Source
from encephalon.library.datasets.statistics import Statistics
from encephalon.library.records.bodies import MAX_STATISTICS

__all__ = ["Puts", "pack"]

SPOOL_BYTES: Final = 256 << 20
"""Shards wait on disk up to here before the first is uploaded: a broken file found meanwhile leaves no garbage."""

MOST_NAMED: Final = 500
"""Shards that a record names itself, of all splits; more go into indexes, for a record must stay small: 40 KiB."""

FIGURES_BYTES: Final = 64 << 10
"""In a record, for the same reason; beyond them, or beyond the number that a record takes, the classes are not
counted."""

T = TypeVar("T")


class Puts(Protocol):
    """What of `library.Writer` is used here."""

    async def put_file(self, path: Path) -> pb.Object: ...

    async def put_bytes(self, data: bytes) -> pb.Object: ...


@dataclass(frozen=True, slots=True)
class _Closed:
    path: Path
    split: str
    samples: int


async def pack(writer: Puts, source: Source, progress: Progress) -> pb.DataSet:
    """The body of the record, whose shards are in the library. `progress` is called from another thread.

    Raises `InvalidInput` when a sample does not fit its modality, a split is empty, or files are broken.
    """
    packing = _Packing(source, progress)
    shards: dict[str, list[pb.Shard]] = {part.name: [] for part in source.parts}
    waiting: list[_Closed] = []
    with tempfile.TemporaryDirectory(prefix="encephalon-shards-", ignore_cleanup_errors=True) as folder:
        async for closed in _in_thread(packing.shards(Path(folder)), packing.stop):
            waiting.append(closed)
            if sum(one.path.stat().st_size for one in waiting) >= SPOOL_BYTES and not packing.refused:
                await _store(writer, waiting, shards, progress)
        packing.check()
        await _store(writer, waiting, shards, progress)
    most = MOST_NAMED // len(shards)
    splits = [await _split(writer, name, found, most) for name, found in shards.items()]
    return pb.DataSet(
        modalities=source.modalities,
        splits=splits,
        recipe=source.recipe,
        parameters=json.dumps(dict(source.parameters), sort_keys=True),
        statistics=packing.statistics(),
    )


class _Packing:
    """The part that reads and writes files, in a thread."""

    def __init__(self, source: Source, progress: Progress) -> None:
        self.stop = Event()
        self._source, self._progress = source, progress
        self._columns: Sequence[Column] = [column_of(modality) for modality in source.modalities]
        self._gathered = {part.name: Statistics(source.modalities) for part in source.parts}
        self._written = dict.fromkeys(self._gathered, 0)

    @property
    def refused(self) -> bool:
        return bool(self._broken.count) and not self._broken.skip

    @property
    def _broken(self) -> Broken:
        return self._source.broken

    def shards(self, folder: Path) -> Iterator[_Closed]:
        """Each shard when it is full. Once a file is broken the rest is only looked through."""
        for at, part in enumerate(self._source.parts):
            batches, number = self._batches(part), 0
            batch = next(batches, None)
            while batch is not None:
                path = folder / f"{at:03}-{number:06}.arrow"
                with ShardFile(path, self._columns) as shard:
                    while batch is not None and not shard.full:
                        shard.add(batch)
                        batch = next(batches, None)
                yield _Closed(path, part.name, shard.samples)
                number += 1

    def check(self) -> None:
        total = self._source.samples
        self._broken.check(total)
        for name, written in self._written.items():
            if not written:
                raise InvalidInput(f"the split '{name}' has no sample that can be read; a split needs at least one")

    def statistics(self) -> dict[str, float]:
        found = {f"{split}.{key}": x for split, one in self._gathered.items() for key, x in one.as_dict().items()}
        if len(found) >= MAX_STATISTICS or sum(len(name.encode()) + 16 for name in found) > FIGURES_BYTES:
            found = {name: value for name, value in found.items() if ".count." not in name}
        if self._broken.count:
            found["left_out"] = float(self._broken.count)
        return found

    def _batches(self, part: Part) -> Iterator[Batch]:
        what = f"packing {part.name}"
        for batch in part.batches():
            if self.stop.is_set():
                raise Cancelled("the data set is no longer wanted")
            count = len(next(iter(batch.values())))
            if not count or self.refused:
                continue
            for name, values in batch.items():
                self._gathered[part.name].add(name, values)
            self._written[part.name] += count
            self._progress(what, self._written[part.name], part.samples)
            yield batch


async def _store(writer: Puts, waiting: list[_Closed], shards: dict[str, list[pb.Shard]], progress: Progress) -> None:
    for done, closed in enumerate(waiting):
        progress("storing shards", done, len(waiting))
        stored = await writer.put_file(closed.path)
        closed.path.unlink()
        shards[closed.split].append(pb.Shard(object=stored, samples=closed.samples))
    progress("storing shards", len(waiting), len(waiting))
    waiting.clear()


async def _split(writer: Puts, name: str, shards: Sequence[pb.Shard], most: int) -> pb.Split:
    samples = sum(shard.samples for shard in shards)
    if len(shards) <= most:
        return pb.Split(name=name, samples=samples, shards=shards)
    index = pb.ShardIndex(shards=shards).SerializeToString(deterministic=True)
    return pb.Split(name=name, samples=samples, index=await writer.put_bytes(index))


async def _in_thread(items: Iterator[T], stop: Event) -> AsyncGenerator[T, None]:
    """Steps through a plain iterator without holding up the loop; when cancelled, waits until its thread is idle."""
    end = object()
    while True:
        step = asyncio.ensure_future(asyncio.to_thread(next, items, end))
        try:
            item = await asyncio.shield(step)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait([step])
            step.cancelled() or step.exception()
            raise
        if item is end:
            return
        yield item  # type: ignore[misc]
