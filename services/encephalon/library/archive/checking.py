"""Checks an archive as a whole: digests, sizes, and that everything named is there and everything there is named."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import zipfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import BinaryIO, Final

from google.protobuf.message import DecodeError

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import Corrupt, InvalidInput
from encephalon.library.archive.contents import (
    CONTENTS,
    MAX_CONTENTS_BYTES,
    Contents,
    Item,
    object_path,
    record_path,
    reference_at,
)
from encephalon.library.archive.layout import DAMAGED, opened
from encephalon.library.archive.steps import STEP_BYTES, Told, digest, finished
from encephalon.library.records import Reference
from encephalon.library.records.bounds import check_object
from encephalon.library.records.checks import MAX_RECORD_BYTES, check_record
from encephalon.library.records.named import indexes_of, objects_of, pinned

__all__ = ["Archive", "checked"]

_SHA256: Final = re.compile(r"(?:sha256:)?([0-9a-fA-F]{64})")


@dataclass(frozen=True, slots=True)
class Archive:
    """One that was checked. What is read of it is compared with its digest again: a file can change meanwhile."""

    digest: str
    contents: Contents
    order: Sequence[str]
    """The paths of the records, parents before their children."""
    missing: Sequence[tuple[Reference, Reference]]
    """What a record of the archive was made from and the archive has not: the record, and what it names."""
    _zip: zipfile.ZipFile

    def record(self, path: str) -> pb.Record:
        """Blocks for a small read. Raises Corrupt."""
        return _record(self._zip, path, self.contents.records[path])

    def reference(self, path: str) -> Reference:
        """Of the record at a path, which was checked to be the record's own."""
        return reference_at(path)

    def references(self) -> Sequence[Reference]:
        return [reference_at(path) for path in self.order]

    def chunks(self, sha256: str) -> AsyncGenerator[bytes, None]:
        """Of an object. Raises Corrupt behind the last."""
        return _chunks(self._zip, object_path(sha256), Item(sha256, self.contents.objects[sha256]))


@contextlib.asynccontextmanager
async def checked(file: BinaryIO, *, expect: str | None, told: Told) -> AsyncIterator[Archive]:
    """Raises Corrupt for what was cut off or altered, or is not what is expected; InvalidInput for what only harms;
    Unsupported for another format.
    """
    wanted = _wanted(expect)
    size = os.fstat(file.fileno()).st_size
    told.total += 2 * size
    found = await digest(file, told)
    if wanted is not None and wanted != found:
        raise Corrupt(f"the archive has the digest {found}, expected was {wanted}; it is another file, or was altered")
    archive = await finished(opened, file, size)
    with archive:
        contents = await finished(_contents, archive)
        told.total += sum(contents.objects.values())
        references = _References(contents)
        await finished(_read_records, archive, contents, references)
        for sha256, size in contents.objects.items():
            chunks = _chunks(archive, object_path(sha256), Item(sha256, size))
            async with contextlib.aclosing(chunks):
                async for chunk in chunks:
                    told.add(len(chunk))
        for sha256 in references.indexes:
            await finished(_read_index, archive, sha256, references)
        references.check()
        yield Archive(found, contents, references.order(), references.missing, archive)


def _wanted(expect: str | None) -> str | None:
    if expect is None:
        return None
    found = _SHA256.fullmatch(expect.strip())
    if found is None:
        raise InvalidInput(f"'{expect[:80]}' is no digest; give the 64 hexadecimal digits that the export said")
    return found[1].lower()


@dataclass(slots=True)
class _References:
    """Who names what."""

    contents: Contents
    parents: dict[str, list[str]] = field(default_factory=dict)
    missing: list[tuple[Reference, Reference]] = field(default_factory=list)
    named: dict[str, int | None] = field(default_factory=dict)
    """Objects with the size that the record says; None where it says none."""
    indexes: set[str] = field(default_factory=set)

    def add(self, path: str, record: pb.Record) -> None:
        self.parents[path] = []
        for parent in (*(one.record for one in record.parents), *record.brain.networks.values()):
            if record_path(parent) in self.contents.records:
                self.parents[path].append(record_path(parent))
            else:
                self.missing.append((Reference.of(record.id), Reference.of(parent)))
        for one in objects_of(record):
            self.name(one)
        for sha256 in pinned(record):
            self.named.setdefault(sha256, None)
        self.indexes |= {index.sha256 for index in indexes_of(record)}

    def name(self, found: pb.Object) -> None:
        there = self.contents.objects.get(found.sha256)
        if there is not None and there != found.size:
            raise Corrupt(
                f"the archive's object sha256:{found.sha256} has {there} bytes, a record says {found.size}; export anew"
            )
        self.named[found.sha256] = found.size

    def check(self) -> None:
        for sha256 in self.named:
            if sha256 not in self.contents.objects:
                raise Corrupt(
                    f"a record of the archive names the object sha256:{sha256}, which it has not; export anew"
                )
        for sha256 in self.contents.objects:
            if sha256 not in self.named:
                raise Corrupt(f"the archive has the object sha256:{sha256}, which no record of it names; export anew")

    def order(self) -> Sequence[str]:
        try:
            return list(TopologicalSorter(self.parents).static_order())
        except CycleError:
            raise Corrupt("the archive has records that were made from each other; export anew") from None


def _contents(archive: zipfile.ZipFile) -> Contents:
    info = archive.getinfo(CONTENTS)
    if info.file_size > MAX_CONTENTS_BYTES:
        raise InvalidInput(
            f"'{CONTENTS}' of the archive has {info.file_size} bytes, at most {MAX_CONTENTS_BYTES} are allowed"
        )
    with _damage(CONTENTS), archive.open(CONTENTS) as member:
        contents = Contents.decoded(member.read())
    members = contents.members
    for info in archive.infolist():
        if info.filename != CONTENTS and info.filename not in members:
            raise InvalidInput(f"the archive has a member '{info.filename[:100]}' that its contents do not name")
    sizes = {info.filename: info.file_size for info in archive.infolist()}
    for path, item in members.items():
        if sizes.get(path) != item.size:
            found = "is missing" if path not in sizes else f"has {sizes[path]} bytes, expected {item.size}"
            raise Corrupt(f"the archive is incomplete: '{path[:200]}' {found}; export anew")
    return contents


def _read_records(archive: zipfile.ZipFile, contents: Contents, references: _References) -> None:
    for path, item in contents.records.items():
        references.add(path, _record(archive, path, item))


def _record(archive: zipfile.ZipFile, path: str, item: Item) -> pb.Record:
    if item.size > MAX_RECORD_BYTES:
        raise InvalidInput(f"the record '{path[:200]}' has {item.size} bytes, at most {MAX_RECORD_BYTES} are allowed")
    data = _read(archive, path, item)
    try:
        record = pb.Record.FromString(data)
    except DecodeError:
        raise Corrupt(f"'{path[:200]}' of the archive is no record; export anew") from None
    check_record(record)
    if record_path(record.id) != path:
        raise Corrupt(f"'{path[:200]}' of the archive holds {Reference.of(record.id)}; export anew")
    return record


def _read_index(archive: zipfile.ZipFile, sha256: str, references: _References) -> None:
    size = references.contents.objects.get(sha256)
    if size is None:
        return  # which `check` tells
    try:
        index = pb.ShardIndex.FromString(_read(archive, object_path(sha256), Item(sha256, size)))
    except DecodeError:
        raise Corrupt(f"the object sha256:{sha256} of the archive is no index of shards; export anew") from None
    for shard in index.shards:
        check_object("a shard of the index", shard.object)
        references.name(shard.object)


def _read(archive: zipfile.ZipFile, path: str, item: Item) -> bytes:
    with _damage(path), archive.open(path) as member:
        data = member.read()
    if len(data) != item.size or hashlib.sha256(data).hexdigest() != item.sha256:
        raise _altered(path)
    return data


async def _chunks(archive: zipfile.ZipFile, path: str, item: Item) -> AsyncGenerator[bytes, None]:
    found, size = hashlib.sha256(), 0

    def step() -> bytes:
        chunk = member.read(STEP_BYTES)
        found.update(chunk)
        return chunk

    with _damage(path), archive.open(path) as member:
        while chunk := await finished(step):
            size += len(chunk)
            yield chunk
    if size != item.size or found.hexdigest() != item.sha256:
        raise _altered(path)


@contextlib.contextmanager
def _damage(path: str) -> Iterator[None]:
    try:
        yield
    except DAMAGED as error:
        raise Corrupt(f"'{path[:200]}' of the archive is damaged: {error}; export or copy it anew") from None


def _altered(path: str) -> Corrupt:
    return Corrupt(f"'{path[:200]}' of the archive does not match its digest; it was altered, export or copy it anew")
