"""The samples of a run: ranges of an epoch's order to learn from, and ranges to judge by."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.blocking import blocking
from encephalon.core.errors import InvalidInput
from encephalon.learning.ahead import Ahead
from encephalon.learning.binding import Binding, bound
from encephalon.learning.dropping import drop
from encephalon.learning.routing import Routing
from encephalon.learning.settings import LearningSettings
from encephalon.library.datasets import StreamingReader, open_record
from encephalon.library.datasets.order import mixed

if TYPE_CHECKING:
    from encephalon.library.library import Library

__all__ = ["Batch", "Samples", "Splits", "open_samples", "reading_samples", "splits_of"]

TRAIN, TEST, NONE = "train", "test", "none"
VALIDATION: Final = "validation"


@dataclass(frozen=True)
class Batch:
    """`inputs` of the brain [rows, ...] by name, with `NAME.present` where some rows lack one; `labels` [rows] of
    classes, or [rows, ...] of numbers."""

    inputs: dict[str, Tensor]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, start: int, stop: int) -> Batch:
        """Rows `start` to `stop`: views."""
        return Batch({name: each[start:stop] for name, each in self.inputs.items()}, self.labels[start:stop])


@dataclass(frozen=True)
class Splits:
    """What is learned from and judged by: names of splits, "" for nothing. `held_out`: the share of `train` that is
    the validation split."""

    train: str
    validation: str
    test: str
    held_out: float = 0.0


class Samples:
    """Reads in the thread that asks, and the range that is expected next in a thread of its own."""

    def __init__(
        self, readers: Mapping[str, StreamingReader], binding: Binding, splits: Splits, settings: LearningSettings
    ) -> None:
        """`readers` by purpose: "train", and "validation" and "test" when these are judged."""
        self.binding = binding
        self.splits = splits
        self._readers = dict(readers)
        self._settings = settings
        self._ahead = Ahead(readers[TRAIN])
        self.training = len(readers[TRAIN])
        """Samples of an epoch."""
        self.evaluation = {purpose: len(reader) for purpose, reader in readers.items() if purpose != TRAIN}
        """Samples by purpose."""

    @property
    def digest(self) -> str:
        """Equal for the same samples in the same roles."""
        readers = [[purpose, each.digest, len(each)] for purpose, each in sorted(self._readers.items())]
        pairs = [[spec.name, modality] for spec, modality in self.binding.inputs]
        told = [readers, pairs, self.binding.label, self._settings.seed, self._settings.modality_dropout]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def train(self, epoch: int, start: int, stop: int) -> Batch:
        """The samples from `start` to `stop` of an epoch's order, which seed and epoch decide. InvalidInput for a range
        that is not there, and what reading raises."""
        self._check(TRAIN, start, stop)
        inputs, labels = self.binding.tensors(self.splits.train, self._ahead.take(epoch, start, stop))
        rate, seed = self._settings.modality_dropout, self._settings.seed
        names = self.binding.droppable
        return Batch(drop(inputs, names, rate, seed=seed, epoch=epoch, start=start), labels)

    def expect(self, epoch: int, start: int, stop: int) -> None:
        """This range will probably be asked for next; what lies beyond the epoch is left out."""
        stop = min(stop, self.training)
        if start < stop:
            self._ahead.begin(epoch, start, stop)

    def evaluate(self, purpose: str, start: int, stop: int) -> Batch:
        """Samples to judge by, always in the same order. InvalidInput for a purpose or range that is not there."""
        self._check(purpose, start, stop)
        columns = next(iter(self._readers[purpose].batches(stop - start, start, stop)))
        return Batch(*self.binding.tensors(getattr(self.splits, purpose), columns))

    def close(self) -> None:
        """Waits for what is being read ahead. Not in the loop that opened the samples."""
        self._ahead.close()

    def _check(self, purpose: str, start: int, stop: int) -> None:
        reader = self._readers.get(purpose)
        if reader is None:
            raise InvalidInput(f"this run judges nothing for '{purpose}'; it has {', '.join(self._readers)}")
        if not 0 <= start < stop <= len(reader):
            raise InvalidInput(f"samples {start} to {stop} for '{purpose}' are not there; it has {len(reader)}")


@asynccontextmanager
async def open_samples(
    library: Library, settings: LearningSettings, routing: Routing, classes: Mapping[str, int] | None = None
) -> AsyncIterator[Samples]:
    """`classes`: columns of the targets, as far as they are known. The samples are asked for in other threads than that
    of this loop.

    Raises what `open_data_set` raises, and InvalidInput, naming split, modality, input or output, for what does not
    fit.
    """
    record = await library.show(settings.data, "data_set")
    splits = splits_of(record, settings)
    binding = bound(record, routing, settings, classes)
    async with AsyncExitStack() as stack:

        async def opened(split: str, *, shuffle: bool, held_out: bool | None = None) -> StreamingReader:
            chosen = None if held_out is None else _HeldOut(_size(record, split), splits.held_out, held_out).chosen
            how = open_record(library, record, split, seed=settings.seed, shuffle=shuffle, chosen=chosen)
            return await stack.enter_async_context(how)

        apart = bool(splits.held_out)
        readers = {TRAIN: await opened(splits.train, shuffle=True, held_out=False if apart else None)}
        if splits.validation:
            readers[VALIDATION] = await opened(splits.validation, shuffle=False, held_out=True if apart else None)
        if splits.test:
            readers[TEST] = await opened(splits.test, shuffle=False)
        samples = Samples(readers, binding, splits, settings)
        # What is being read ahead needs this loop to come to its end.
        stack.push_async_callback(asyncio.to_thread, samples.close)
        yield samples


@contextmanager
def reading_samples(
    library: AbstractAsyncContextManager[Library],
    settings: LearningSettings,
    routing: Routing,
    classes: Mapping[str, int] | None = None,
) -> Iterator[Samples]:
    """As `open_samples`, for programs without an event loop: `with reading_samples(open_library(...), ...)`."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[_Held]:
        async with library as entered, open_samples(entered, settings, routing, classes) as samples:
            yield _Held(samples)

    with blocking(opened()) as held:
        samples: Samples = held.samples
        yield samples


def splits_of(record: pb.Record, settings: LearningSettings) -> Splits:
    """InvalidInput, naming the split, for one that is not there and for a share that leaves nothing."""
    names = [split.name for split in record.data_set.splits]
    train = settings.split or (TRAIN if TRAIN in names or len(names) != 1 else names[0])
    test = settings.test or (TEST if TEST in names and train != TEST else "")
    test = "" if test == NONE and NONE not in names else test
    validation, held_out = settings.validation, 0.0
    if validation and validation not in names:
        held_out = _share(validation, names)
        validation = train if held_out else ""
    for split in (train, validation, test):
        if split and split not in names:
            raise InvalidInput(
                f"data set '{record.id.name}' has no split '{split}'; it has {', '.join(names)}", split=split
            )
    if held_out and _size(record, train) < 2:
        raise InvalidInput(f"split '{train}' has one sample, of which none can be held out", split=train)
    return Splits(train, validation, test, held_out)


@dataclass(frozen=True)
class _Held:
    samples: Samples


class _HeldOut:
    """Exactly so many of a split's samples, at least one and never all, by a hash of their places: they are the same
    for every run."""

    def __init__(self, samples: int, share: float, wanted: bool) -> None:
        count = min(max(round(samples * share), 1), samples - 1)
        self._wanted = wanted
        self._border = np.partition(_hashed(np.arange(samples, dtype=np.int64)), count - 1)[count - 1]

    def chosen(self, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        held: NDArray[np.bool_] = _hashed(places) <= self._border
        return held if self._wanted else ~held


def _hashed(places: NDArray[np.int64]) -> NDArray[np.uint64]:
    return mixed(places.astype(np.uint64))


def _size(record: pb.Record, name: str) -> int:
    return next(int(split.samples) for split in record.data_set.splits if split.name == name)


def _share(text: str, names: list[str]) -> float:
    try:
        share = float(text)
    except ValueError:
        raise InvalidInput(
            f"there is no split '{text}' to judge by; there are {', '.join(names)}, or a share such as 0.1", split=text
        ) from None
    if not 0 <= share < 1:
        raise InvalidInput(f"the share {text} cannot be held out; give one from 0 to 1")
    return share
