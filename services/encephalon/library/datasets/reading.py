"""A data set for programs without an event loop, such as a training loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from encephalon.core.blocking import blocking
from encephalon.library.datasets.reader import StreamingReader, open_data_set
from encephalon.library.records import Reference

if TYPE_CHECKING:
    from encephalon.library.library import Library

__all__ = ["reading"]


@dataclass(frozen=True, slots=True)
class _Held:
    reader: StreamingReader


@contextmanager
def reading(
    library: AbstractAsyncContextManager[Library], reference: str | Reference, split: str, **options: Any
) -> Iterator[StreamingReader]:
    """`with reading(open_library(...), "avmnist", "train") as reader: for sample in reader: ...`

    `options` are those of `open_data_set`. Library and reader live in a loop of their own, in a thread that ends with
    the block: shards are fetched ahead while the caller computes. Raises as `open_library` and `open_data_set` do.
    """

    @asynccontextmanager
    async def opened() -> AsyncIterator[_Held]:
        async with library as entered, open_data_set(entered, reference, split, **options) as reader:
            yield _Held(reader)

    with blocking(opened()) as held:
        reader: StreamingReader = held.reader
        yield reader
