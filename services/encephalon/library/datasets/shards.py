"""Writes shards: Arrow IPC files of bounded size, the same bytes for the same samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from encephalon.core.errors import InvalidInput
from encephalon.library.datasets.arrow import arrow
from encephalon.library.datasets.columns import Column, Values, schema_of

__all__ = ["BATCH_ROWS", "SHARD_BYTES", "SHARD_ROWS", "ShardFile"]

SHARD_BYTES: Final = 32 << 20
SHARD_ROWS: Final = 1 << 16
"""Bounds the order of a group of shards whose samples are tiny."""

BATCH_ROWS: Final = 256
"""A record batch is what must be looked at to find one row."""


class ShardFile:
    """One shard that is being written; an async or plain caller adds record batches until it is `full`."""

    def __init__(self, path: Path, columns: Sequence[Column]) -> None:
        self.path = path
        self.samples = 0
        self.bytes = 0
        self._columns = columns
        self._schema = schema_of(columns)
        self._file = arrow().OSFile(str(path), "wb")
        self._writer = arrow().ipc.new_file(self._file, self._schema)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def full(self) -> bool:
        return self.bytes >= SHARD_BYTES or self.samples >= SHARD_ROWS

    def add(self, batch: Mapping[str, Values]) -> None:
        """One record batch, all columns of the same length. Raises `InvalidInput` when a column is missing or does not
        fit."""
        missing = [column.name for column in self._columns if column.name not in batch]
        if missing or len(batch) != len(self._columns):
            raise InvalidInput(f"a batch has columns {sorted(batch)}, expected {[one.name for one in self._columns]}")
        encoded: list[Any] = [column.encode(batch[column.name]) for column in self._columns]
        lengths = {len(array) for array in encoded}
        if len(lengths) > 1:
            raise InvalidInput(f"the columns of a batch have unequal lengths {sorted(lengths)}")
        self._writer.write_batch(arrow().record_batch(encoded, schema=self._schema))
        self.samples += lengths.pop()
        self.bytes += sum(column.size(batch[column.name]) for column in self._columns)

    def close(self) -> None:
        """Twice is harmless."""
        self._writer.close()
        self._file.close()
