"""Takes an archive in: objects first, then records, parents before their children, so that whenever it is cut off the
library is whole and the same file can be imported again.
"""

from __future__ import annotations

import contextlib
import stat
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import AlreadyExists, Corrupt, FailedPrecondition, InvalidInput, NotFound
from encephalon.library.archive.checking import Archive, checked
from encephalon.library.archive.renaming import Renaming
from encephalon.library.archive.steps import Told, finished
from encephalon.library.records import Reference
from encephalon.library.store.entries import message_or_none
from encephalon.library.store.keys import object_key
from encephalon.library.store.progress import Counted, uncounted
from encephalon.library.store.writer import Writer

if TYPE_CHECKING:
    from encephalon.library.library import Library

__all__ = ["Imported", "import_"]

_SMALL: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Imported:
    digest: str
    """SHA-256 of the file."""
    records: Sequence[Reference]
    """All that the archive has, parents before their children, under the names that they have here."""
    added: Sequence[Reference]
    """Those that were not there before."""
    objects: int
    """All that the archive has."""


async def import_(
    library: Library,
    path: Path,
    *,
    expect: str | None = None,
    rename: Mapping[str, str] | None = None,
    progress: Counted = uncounted,
) -> Imported:
    """Takes in what another library has exported; records keep number, time and author. What is there already is left
    as it is.

    expect: the digest that the export said. rename: `kind:name` to another name, for names that are taken here.

    Raises, before anything is changed: Corrupt for a file that was cut off or altered or is not the one expected;
    InvalidInput for one that was made to do harm; Unsupported for another format; AlreadyExists for a number that
    another record has; FailedPrecondition when a parent is neither in the archive nor here.
    """
    told = Told(progress)
    with _opened(path) as file:
        async with checked(file, expect=expect, told=told) as archive:
            names = Renaming(rename or {}, archive.references() if rename else [])
            new = await _new(library, archive, names)
            objects = list(archive.contents.objects) if new else await _lost(library, archive)
            if new or objects:
                async with library.writing("import") as writer:
                    for sha256 in objects:
                        await _bring(writer, archive, sha256, told)
                    added = [one for one in new if await writer.put_record(names.apply(archive.record(one)))]
            else:
                added = []
            told.add(told.total)
            records = {one: names.of(archive.reference(one)) for one in archive.order}
            return Imported(
                archive.digest,
                list(records.values()),
                [records[one] for one in added],
                len(archive.contents.objects),
            )


def _opened(path: Path) -> BinaryIO:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            # It is read more than once, and a pipe would be waited for.
            raise InvalidInput(f"{path} is not a file; name an exported file")
        return path.open("rb")
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror or error}; name an exported file") from error


async def _new(library: Library, archive: Archive, names: Renaming) -> Sequence[str]:
    """The paths of the records that are not here. Raises AlreadyExists and FailedPrecondition."""
    store, keys = library.key_value, library.stores.keys
    new: list[str] = []
    for path in archive.order:
        record = names.apply(await finished(archive.record, path))
        entry = await store.get(keys.record(record.id))
        if entry is None:
            new.append(path)
        elif message_or_none(pb.Record, entry) != record:
            reference = Reference.of(record.id)
            raise AlreadyExists(
                f"{reference} is another record here than in the archive; import it under another name (rename "
                f"'{reference.kind}:{reference.name}'), or into another namespace; nothing was changed",
                record=reference,
            )
    for child, parent in archive.missing:
        if await store.get(keys.record(parent.message)) is None:
            raise FailedPrecondition(
                f"{child} of the archive was made from {parent}, which is neither in it nor in this library; import "
                "that first, or export with parents; nothing was changed",
                record=parent,
            )
    return new


async def _lost(library: Library, archive: Archive) -> Sequence[str]:
    """Objects of records that are here, whose bytes this library has lost: an import gives them back."""
    return [sha256 for sha256, size in archive.contents.objects.items() if not await _is_whole(library, sha256, size)]


async def _is_whole(library: Library, sha256: str, size: int) -> bool:
    entry = message_or_none(pb.StoredObject, await library.key_value.get(library.stores.keys.object(sha256)))
    if entry is None or not entry.complete:
        return False
    with contextlib.suppress(NotFound, Corrupt):
        return (await library.objects.stat(object_key(sha256))).size == size
    return False


async def _bring(writer: Writer, archive: Archive, sha256: str, told: Told) -> None:
    size = archive.contents.objects[sha256]
    if size <= _SMALL:
        async with contextlib.aclosing(archive.chunks(sha256)) as chunks:
            data = b"".join([chunk async for chunk in chunks])
        found = await writer.put_bytes(data)
        told.add(size)
    else:
        # From a file an upload is in parts, and needs no more memory than they do.
        with tempfile.TemporaryDirectory(prefix="encephalon-import-") as folder:
            part = Path(folder) / sha256
            await _copy(archive, sha256, part)
            found = await writer.put_file(part, progress=told.within(size))
    if found.sha256 != sha256:
        raise Corrupt(f"the object sha256:{sha256} of the archive was altered while it was read; import it again")


async def _copy(archive: Archive, sha256: str, part: Path) -> None:
    try:
        with part.open("wb") as file:
            async with contextlib.aclosing(archive.chunks(sha256)) as chunks:
                async for chunk in chunks:
                    await finished(file.write, chunk)
    except OSError as error:
        raise FailedPrecondition(
            f"{part.parent.parent} has no room for an object of {archive.contents.objects[sha256]} bytes: "
            f"{error.strerror}; let TMPDIR name another folder"
        ) from error
