"""Reads the range of samples that is probably asked for next, while the one before is computed."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from encephalon.library.datasets import Batched, StreamingReader

__all__ = ["Ahead"]


class Range(NamedTuple):
    epoch: int
    start: int
    stop: int


class Ahead:
    """One range at most is read ahead. What a wrong guess has in common with the right range is used all the same."""

    def __init__(self, reader: StreamingReader) -> None:
        self._reader = reader
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="samples-ahead")
        self._guess: tuple[Range, Future[Batched]] | None = None

    def begin(self, epoch: int, start: int, stop: int) -> None:
        """Starts to read; a guess before this one is forgotten. The range must be there."""
        wanted = Range(epoch, start, stop)
        if self._guess is not None:
            if self._guess[0] == wanted:
                return
            self._guess[1].cancel()
        self._guess = wanted, self._pool.submit(self._read, *wanted)

    def take(self, epoch: int, start: int, stop: int) -> Batched:
        """Raises what reading raises; what failed ahead is tried again."""
        guess, self._guess = self._guess, None
        if guess is None:
            return self._read(epoch, start, stop)
        there, reading = guess
        first, last = max(start, there.start), min(stop, there.stop)
        if there.epoch != epoch or first >= last or reading.exception() is not None:
            reading.cancel()
            return self._read(epoch, start, stop)
        found = _part(reading.result(), first - there.start, last - there.start)
        before = [self._read(epoch, start, first)] if start < first else []
        behind = [self._read(epoch, last, stop)] if last < stop else []
        return _joined([*before, found, *behind])

    def close(self) -> None:
        """Waits for what is being read. Twice is harmless."""
        self._pool.shutdown(cancel_futures=True)

    def _read(self, epoch: int, start: int, stop: int) -> Batched:
        return next(iter(self._reader.batches(stop - start, start, stop, epoch=epoch)))


def _part(columns: Batched, start: int, stop: int) -> Batched:
    return {name: values[start:stop] for name, values in columns.items()}


def _joined(parts: list[Batched]) -> Batched:
    if len(parts) == 1:
        return parts[0]
    return {name: _chained([part[name] for part in parts]) for name in parts[0]}


def _chained(values: list[Any]) -> Any:
    if isinstance(values[0], np.ndarray):
        return np.concatenate(values)
    return [each for part in values for each in part]
