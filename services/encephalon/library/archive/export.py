"""Writes an archive: under a name of its own, which becomes the final one when the last byte is safe on the disk."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import uuid
import zipfile
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import Corrupt, FailedPrecondition, InvalidInput, NotFound
from encephalon.library.archive.contents import CONTENTS, MAX_MEMBERS, Contents, Item, record_path, reference_at
from encephalon.library.archive.steps import Told, digest, finished
from encephalon.library.records import Reference
from encephalon.library.records.named import digests_of
from encephalon.library.store.entries import bytes_of
from encephalon.library.store.keys import object_key
from encephalon.library.store.progress import Counted, uncounted
from encephalon.library.store.shards import indexed

if TYPE_CHECKING:
    from encephalon.library.library import Library

__all__ = ["Exported", "export"]

_DATE: Final = (1980, 1, 1, 0, 0, 0)  # the first that a zip can say
_MODE: Final = 0o644 << 16
_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class Exported:
    path: Path
    digest: str
    """SHA-256 of the file, for `import_(expect=...)`."""
    records: Sequence[Reference]
    """In the order of their paths."""
    objects: int
    size: int
    """Bytes of the file."""


async def export(
    library: Library,
    references: Sequence[str | Reference],
    path: Path,
    *,
    with_parents: bool = True,
    progress: Counted = uncounted,
) -> Exported:
    """Writes records, all that they were made from and all bytes that these name into one file, in place of what was
    there. The same records give the same bytes, whichever stores they come from.

    with_parents: False leaves out what they were made from; only a library that has it takes the file in.

    Raises NotFound and InvalidInput for what is not there, Corrupt for a damaged library, FailedPrecondition.
    """
    if not references:
        raise InvalidInput("nothing was named to be exported; give at least one record, as in brain:digits@production")
    gathered = await _Gathering(library, with_parents).all(references)
    contents = Contents(gathered.records, await _sizes(library, gathered.digests))
    with _becoming(path) as file:
        await _write(library, gathered, contents, file, progress)
        size = await finished(_made_safe, file)
        found = await digest(file)
    records = [reference_at(name) for name in sorted(gathered.records)]
    return Exported(path, found, records, len(contents.objects), size)


@dataclass(slots=True)
class _Gathering:
    """What goes into the archive; of a record its digest is kept and not itself, so that many fit into memory."""

    library: Library
    with_parents: bool
    records: dict[str, Item] = field(default_factory=dict)
    digests: set[str] = field(default_factory=set)

    async def all(self, references: Sequence[str | Reference]) -> _Gathering:
        for reference in references:
            waiting = [await self.library.resolve(reference)]
            while waiting:
                found = waiting.pop()
                path = record_path(found.message)
                if path not in self.records:
                    waiting += await self._take(path, found)
        return self

    async def _take(self, path: str, reference: Reference) -> Sequence[Reference]:
        """What the record was made from."""
        record = await self.library.show(reference)
        data = bytes_of(record)
        self.records[path] = Item(hashlib.sha256(data).hexdigest(), len(data))
        self.digests |= digests_of(record)
        async for shard in indexed(self.library.objects, record):
            self.digests.add(shard.sha256)
        if len(self.records) + len(self.digests) >= MAX_MEMBERS:
            raise InvalidInput(f"an archive has at most {MAX_MEMBERS} records and objects; export fewer at a time")
        if not self.with_parents:
            return []
        return [await self._parent(record, one) for one in _named(record) if record_path(one) not in self.records]

    async def _parent(self, record: pb.Record, parent: pb.Reference) -> Reference:
        try:
            return await self.library.resolve(Reference.of(parent))
        except NotFound:
            raise FailedPrecondition(
                f"{Reference.of(record.id)} was made from {Reference.of(parent)}, which is not in the library; export "
                "without parents, or import the missing record first",
                record=Reference.of(parent),
            ) from None


def _named(record: pb.Record) -> Sequence[pb.Reference]:
    return [*(parent.record for parent in record.parents), *record.brain.networks.values()]


async def _sizes(library: Library, digests: set[str]) -> dict[str, int]:
    async def size(sha256: str) -> int:
        try:
            return (await library.objects.stat(object_key(sha256))).size
        except NotFound:
            raise Corrupt(
                f"the object sha256:{sha256} is not in the library, though a record names it; see `library verify`",
                sha256=sha256,
            ) from None

    wanted, found = sorted(digests), dict[str, int]()
    for start in range(0, len(wanted), _AT_ONCE):
        batch = wanted[start : start + _AT_ONCE]
        found.update(zip(batch, await asyncio.gather(*map(size, batch)), strict=True))
    return found


async def _write(library: Library, gathered: _Gathering, contents: Contents, file: BinaryIO, progress: Counted) -> None:
    told = Told(progress, sum(item.size for item in contents.members.values()))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        start = contents.encoded()
        await _member(archive, CONTENTS, Item(hashlib.sha256(start).hexdigest(), len(start)), _once(start), None)
        for path, item in contents.members.items():
            if path in gathered.records:
                # Read again: all at once would not fit.
                source = _once(bytes_of(await library.show(reference_at(path))))
            else:
                source = library.objects.get(object_key(item.sha256))
            await _member(archive, path, item, source, told)


async def _member(
    archive: zipfile.ZipFile, path: str, item: Item, source: AsyncGenerator[bytes, None], told: Told | None
) -> None:
    info = zipfile.ZipInfo(path, _DATE)
    info.create_system, info.external_attr, info.file_size = 3, _MODE, item.size
    found, size = hashlib.sha256(), 0

    def step(chunk: bytes) -> None:
        found.update(chunk)
        member.write(chunk)

    with archive.open(info, "w") as member:
        async with contextlib.aclosing(source):
            async for chunk in source:
                size += len(chunk)
                if size > item.size:
                    break
                await finished(step, chunk)
                if told is not None:
                    told.add(len(chunk))
    if size != item.size or found.hexdigest() != item.sha256:
        raise Corrupt(f"'{path}' is damaged in the library, or was replaced while it was read; see `library verify`")


async def _once(data: bytes) -> AsyncGenerator[bytes, None]:
    yield data


def _made_safe(file: BinaryIO) -> int:
    file.flush()
    os.fsync(file.fileno())
    return os.fstat(file.fileno()).st_size


@contextlib.contextmanager
def _becoming(path: Path) -> Iterator[BinaryIO]:
    """A new file beside `path`, which takes its place when the block ends well and else is gone."""
    part = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.part"
    try:
        if path.is_dir():
            raise InvalidInput(f"{path} is a folder; name a file to export to")
        with part.open("x+b") as file:
            yield file
        part.replace(path)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror or error}; name another file") from error
    finally:
        part.unlink(missing_ok=True)
