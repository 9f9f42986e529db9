"""Brings data sets into the library: from arrays, a recipe, a folder or a table."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import InvalidInput, NotFound
from encephalon.library.avmnist.progress import Progress, silent
from encephalon.library.datasets import recipe
from encephalon.library.datasets.arrays import Rows, array_source
from encephalon.library.datasets.arrow import arrow
from encephalon.library.datasets.columns import Values
from encephalon.library.datasets.folder import folder_source
from encephalon.library.datasets.options import DataSetOptions
from encephalon.library.datasets.packing import pack
from encephalon.library.datasets.source import Source
from encephalon.library.datasets.table import TABLES, table_source
from encephalon.library.records.checks import MAX_RECORD_BYTES, check_draft

if TYPE_CHECKING:
    from encephalon.library.library import Library
    from encephalon.library.store.writer import Writer

__all__ = ["add_arrays", "add_data_set"]

RECIPES = ("avmnist",)

MOST_SAID = MAX_RECORD_BYTES - (112 << 10)
"""Leaves room for the shards and figures that `pack` adds."""


async def add_data_set(
    library: Library,
    source: Path | str,
    name: str,
    options: DataSetOptions | None = None,
    progress: Progress = silent,
) -> pb.Record:
    """Adds a version of the data set `name`, and returns its record; the version there is when nothing has changed.

    `source` is "avmnist", a folder with a folder per class of pictures or sounds (below train/ and test/ or not), a
    folder that `encephalon data get avmnist` has built, or a table (.csv, .tsv, .parquet) that names files. `progress`
    is called from other threads.

    Raises `NotFound` when there is no such source, `InvalidInput` for one that is none of these, for options that do
    not fit it and for broken files (named in the message; nothing is added), `FailedPrecondition` when pyarrow or scipy
    is missing, and what `avmnist.get` raises.
    """
    chosen = options or DataSetOptions()
    arrow()  # or it would be found missing when all is downloaded and examined
    async with _opened(source, chosen, progress) as opened:
        return await _add(library, name, opened, chosen, progress)


async def add_arrays(
    target: Library | Writer,
    name: str,
    columns: Mapping[str, Values],
    splits: Mapping[str, Rows],
    modalities: Sequence[pb.Modality] | None = None,
    *,
    progress: Progress = silent,
    made_by: str = "arrays",
    parameters: Mapping[str, Any] | None = None,
    **fields: Any,
) -> pb.Record:
    """Adds a data set that is in memory: `columns` are arrays [N, ...] (or lists of arrays of several shapes, of text
    or of bytes), `splits` say which rows belong to each, as a slice or as row numbers.

    `modalities` describes the columns; None: told by their dtypes and shapes, integers named "label" are classes.
    `target` is a library, or a writer of one that several records are written with. `made_by` and `parameters` go into
    the record as its recipe, `fields` are others of the record: description, tags, licence, origin, parents.

    Returns the version there is when nothing has changed. Raises `InvalidInput` when columns, splits and modalities do
    not fit each other.
    """
    source = array_source(columns, splits, modalities, recipe=made_by, parameters=parameters or {})
    async with _writer(target, name) as writer:
        record = _record(name, source, **fields)
        record.data_set.CopyFrom(await pack(writer, source, progress))
        return await writer.commit(record, reuse=True)


@asynccontextmanager
async def _opened(source: Path | str, options: DataSetOptions, progress: Progress) -> AsyncIterator[Source]:
    if isinstance(source, str) and source in RECIPES:
        async with recipe.built(options, progress) as folder:
            yield await asyncio.to_thread(recipe.avmnist_source, folder)
    else:
        yield await asyncio.to_thread(_open, Path(source), options, progress)


def _open(source: Path, options: DataSetOptions, progress: Progress) -> Source:
    if not source.exists():
        raise NotFound(f"there is no data set at {source}; give a folder, a table, or {', '.join(RECIPES)}")
    if recipe.is_built(source):
        return recipe.avmnist_source(source)
    # A seed is understood by every source.
    if options.raw or set(options.parameters) - {"seed"}:
        raise InvalidInput(f"raw files and parameters belong to recipes ({', '.join(RECIPES)}), not to {source}")
    if source.is_dir():
        return folder_source(source, options, progress)
    if source.suffix.lower() in TABLES:
        return table_source(source, options, progress)
    raise InvalidInput(f"{source} is no folder and no table; tables end in {', '.join(TABLES)}")


async def _add(library: Library, name: str, source: Source, options: DataSetOptions, progress: Progress) -> pb.Record:
    async with library.writing(f"add data set {name}") as writer:
        record = _record(
            name,
            source,
            description=options.description or source.description,
            licence=options.licence or source.licence,
            origin=options.origin or source.origin,
            tags=options.tags,
            metrics=options.metrics,
            parents=options.parents,
        )
        record.data_set.CopyFrom(await pack(writer, source, progress))
        return await writer.commit(record, reuse=True, alias=options.alias)


@asynccontextmanager
async def _writer(target: Library | Writer, name: str) -> AsyncIterator[Writer]:
    if hasattr(target, "writing"):
        async with target.writing(f"add data set {name}") as writer:
            yield writer
    else:
        yield target


def _record(name: str, source: Source, **fields: Any) -> pb.Record:
    """What is known before anything is read. InvalidInput for what the library would refuse in the end."""
    body = pb.DataSet(modalities=source.modalities, splits=[pb.Split(name=part.name) for part in source.parts])
    record = pb.Record(id=pb.Reference(kind=pb.KIND_DATA_SET, name=name), data_set=body, **fields)
    check_draft(record)
    if record.ByteSize() > MOST_SAID:
        raise InvalidInput(
            f"what is said of '{name}' takes {record.ByteSize()} bytes, at most {MOST_SAID} are allowed; use fewer or "
            "shorter names of classes"
        )
    return record
