"""The outer shape of an archive: a zip without anything besides its members, which lie one behind the other.

What `zipfile` forgives (bytes before, between and behind, members that overlap) is refused here, before it reads a
directory that may be larger than memory.
"""

from __future__ import annotations

import struct
import zipfile
from typing import BinaryIO, Final

from encephalon.core.errors import Corrupt, InvalidInput
from encephalon.library.archive.contents import CONTENTS, MAX_MEMBERS

__all__ = ["DAMAGED", "opened"]

# The parts of a zip after APPNOTE 6.3, sections 4.3.7 and 4.3.14 to 4.3.16.
_END: Final = struct.Struct("<4s4H2IH")
_LOCATOR: Final = struct.Struct("<4sIQI")
_END64: Final = struct.Struct("<4sQ2H2I4Q")
_LOCAL: Final = struct.Struct("<4s5H3I2H")
_DIRECTORY_BYTES: Final = 46 + 20 + 600  # of one member: the entry, large sizes, the longest path that we write

DAMAGED: Final = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    NotImplementedError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    struct.error,
)


def opened(file: BinaryIO, size: int) -> zipfile.ZipFile:
    """Raises Corrupt for what is cut off or no archive, InvalidInput for what only harms; reads no member."""
    count, start, length = _directory(file, size)
    if count > MAX_MEMBERS or length > MAX_MEMBERS * _DIRECTORY_BYTES:
        raise InvalidInput(f"the archive has {count} members, at most {MAX_MEMBERS} are allowed")
    try:
        archive = zipfile.ZipFile(file)
    except DAMAGED as error:
        raise Corrupt(f"the archive is damaged: {error}; export anew") from None
    try:
        members = archive.infolist()
        if len(members) != count:
            raise _torn("it has other members than it says")
        _check_names(members)
        for member in members:
            _check_stored(member)
        _check_places(file, sorted(members, key=lambda member: member.header_offset), start)
    except BaseException:
        archive.close()
        raise
    return archive


def _directory(file: BinaryIO, size: int) -> tuple[int, int, int]:
    """How many members it lists, where it starts and how long it is."""
    end = size - _END.size
    mark, *_, count, length, start, comment = _END.unpack(_bytes(file, end, _END.size))
    if mark != b"PK\x05\x06" or comment:
        raise _torn("it does not end as an archive does")
    before = end - _LOCATOR.size
    if before >= 0 and _bytes(file, before, 4) == b"PK\x06\x07":
        end = before - _END64.size
        mark, *_, count, length, start = _END64.unpack(_bytes(file, end, _END64.size))
        if mark != b"PK\x06\x06":
            raise _torn("it does not end as an archive does")
    if start + length != end:
        raise _torn("its directory is not where it should be")
    return count, start, length


def _check_names(members: list[zipfile.ZipInfo]) -> None:
    seen: set[str] = set()
    for member in members:
        name = member.filename
        if name != member.orig_filename or name.startswith("/") or "\\" in name or ":" in name or _climbs(name):
            raise InvalidInput(
                f"the archive has the member {member.orig_filename[:100]!a}, which leads out of the archive; it was "
                "made to do harm, nothing of it was taken"
            )
        if name in seen:
            raise InvalidInput(f"the archive has '{name[:100]}' twice; an archive of Encephalon has no member twice")
        seen.add(name)
    if CONTENTS not in seen:
        raise Corrupt(f"the archive has no '{CONTENTS}'; it is no archive of Encephalon")


def _climbs(name: str) -> bool:
    return any(part in ("", ".", "..") for part in name.removesuffix("/").split("/"))


def _check_stored(member: zipfile.ZipInfo) -> None:
    if member.flag_bits & 0x1:
        raise InvalidInput(f"'{member.filename[:100]}' is encrypted; an archive of Encephalon is not")
    if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
        raise InvalidInput(
            f"'{member.filename[:100]}' is compressed; an archive of Encephalon is not, so that nothing grows when it "
            "is unpacked"
        )


def _check_places(file: BinaryIO, members: list[zipfile.ZipInfo], end: int) -> None:
    """Each member begins where the one before ends, from the first byte to the directory: none overlap."""
    at = 0
    for member in members:
        if member.header_offset != at:
            raise _torn("there is a gap between its members, or they overlap")
        *_, name, extra = _LOCAL.unpack(_bytes(file, at, _LOCAL.size))
        at += _LOCAL.size + name + extra + member.file_size
    if at != end:
        raise _torn("there is a gap between its members, or they overlap")


def _bytes(file: BinaryIO, start: int, count: int) -> bytes:
    if start < 0:
        raise _torn("it is too short")
    file.seek(start)
    data = file.read(count)
    if len(data) != count:
        raise _torn("it is too short")
    return data


def _torn(why: str) -> Corrupt:
    return Corrupt(f"the file is no archive of Encephalon, or was cut off: {why}; export or copy it anew")
