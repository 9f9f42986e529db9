"""What an object store promises, whichever it is.

An object is there as a whole or not at all: `put` shows it when its last byte is safe, and who is reading the one
before reads that to its end.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, Self, TypeAlias

from encephalon.core.errors import Conflict, Corrupt, InvalidInput

__all__ = ["CHUNK_BYTES", "ObjectEntry", "ObjectInfo", "Objects", "Progress", "check_range", "read", "unseen"]

CHUNK_BYTES: Final = 1024 * 1024
_ATTEMPTS: Final = 4


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    key: str
    size: int
    sha256: str
    """Lower-case hexadecimal; "" for an object that another program has put into the bucket."""


@dataclass(frozen=True, slots=True)
class ObjectEntry:
    """One line of a list."""

    key: str
    size: int


Progress: TypeAlias = Callable[[int], None]
"""Is told, in the event loop's thread, how many bytes are done in all, with those that an earlier attempt has done;
never less than before.
"""


def unseen(done: int) -> None:
    """Progress that nobody follows."""


class Objects(Protocol):
    """Keys are any non-empty UTF-8 text whose name in the store (`state.names`) stays within 1,000 bytes: else
    InvalidInput.

    Unavailable is raised when the store does not answer within the deadline it was opened with.
    """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...

    async def put(self, key: str, source: bytes | AsyncIterator[bytes]) -> ObjectInfo:
        """Stores `source`, in place of what was there. Holds at most a few MiB in memory; what does not fit waits on
        disk.
        """
        ...

    def get(self, key: str, start: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
        """Bytes `start` to `start + length` in chunks of at most 1 MiB; what lies behind the end is left out.

        Raises NotFound; after the last byte of a whole read Corrupt when they are not what was put, and Conflict when
        the object was replaced meanwhile and the store could not keep the two apart.
        """
        ...

    async def upload(self, key: str, path: Path, *, sha256: str, progress: Progress = unseen) -> ObjectInfo:
        """As `put`, from a file and without another copy of it on this disk; large ones in several parts at once.

        On S3 it goes on where an upload of the same file to the same key has stopped, killed or not. Raises
        InvalidInput when the file cannot be read or its bytes do not have this `sha256`; then nothing is stored.
        """
        ...

    async def download(self, key: str, path: Path, *, progress: Progress = unseen) -> ObjectInfo:
        """Into a file that is there as a whole or not at all; its bytes are verified. After a loss of power it may be
        too short.

        They come together in PATH.part, where the next attempt goes on, unless they are wrong: Corrupt. Raises
        NotFound, Conflict when the object was replaced meanwhile, and FailedPrecondition when the file cannot be
        written. Two downloads to one path do not disturb each other.
        """
        ...

    async def stat(self, key: str) -> ObjectInfo:
        """Raises NotFound."""
        ...

    def list(self, prefix: str) -> AsyncGenerator[ObjectEntry, None]:
        """Every object whose key starts with `prefix`, once, in no particular order."""
        ...

    async def delete(self, key: str) -> None:
        """Harmless when there is no such object."""
        ...


async def read(objects: Objects, key: str, *, most: int | None = None) -> bytes:
    """A whole object, verified, for those that are known to be small. Raises NotFound; Corrupt for one that is damaged
    or has more than `most` bytes.
    """
    for _ in range(_ATTEMPTS - 1):
        # A store that mixes an object with the one that takes its place gives another answer the next time; damage
        # stays.
        with contextlib.suppress(Conflict, Corrupt):
            return await _read_once(objects, key, most)
    return await _read_once(objects, key, most)


async def _read_once(objects: Objects, key: str, most: int | None) -> bytes:
    data = bytearray()
    async with contextlib.aclosing(objects.get(key)) as chunks:
        async for chunk in chunks:
            data += chunk
            if most is not None and len(data) > most:
                raise Corrupt(f"{key!r} has more than the {most} bytes that it should have", key=key)
    return bytes(data)


def check_range(start: int, length: int | None) -> None:
    if start < 0 or (length is not None and length < 0):
        raise InvalidInput(f"a range needs a start and a length of 0 or more, not {start} and {length}")
