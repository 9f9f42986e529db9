"""POSIX shared memory that clients lend to a server, under names that they register.

Bytes are read and written through the file descriptor and not through a mapping: a client that truncates or overwrites
its memory while it is read can then spoil its own request at most, where a mapping would end the process with SIGBUS.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from encephalon.core.errors import AlreadyExists, Denied, FailedPrecondition, InvalidInput, NotFound, Overloaded

__all__ = ["ANY_NAME", "SharedMemory", "SharedRegion"]

# For servers that only this machine can reach.
ANY_NAME = ("/",)
FOLDER = Path("/dev/shm")  # noqa: S108 - where Linux keeps what shm_open creates
# Each region costs a descriptor; 1,024 is the usual limit of a process.
MAX_REGIONS = 512


@dataclass(frozen=True, slots=True)
class SharedRegion:
    """`byte_size` bytes at `offset` of the object `key`."""

    name: str
    key: str
    offset: int
    byte_size: int
    descriptor: int


class SharedMemory:
    """The registered regions. `allowed_prefixes` of keys, each with its leading "/"; none allows nothing."""

    def __init__(self, allowed_prefixes: Sequence[str]) -> None:
        self._allowed = tuple(allowed_prefixes)
        self._regions: dict[str, SharedRegion] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Opens the object. Denied, NotFound, InvalidInput (too small), AlreadyExists or Overloaded (too many)."""
        if not name:
            raise InvalidInput("a region of shared memory came without a name")
        if name in self._regions:
            raise AlreadyExists(f"shared memory '{name}' is registered already; unregister it first", region=name)
        if len(self._regions) >= MAX_REGIONS:
            raise Overloaded(
                f"{MAX_REGIONS} regions of shared memory are registered, which is the most; unregister some"
            )
        if offset < 0 or byte_size <= 0:
            raise InvalidInput(
                f"shared memory '{name}' came with offset {offset} and {byte_size} bytes; expected at least 0 and 1",
                region=name,
            )
        descriptor = self._open(name, key)
        try:
            size = size_of(name, descriptor)
            if offset + byte_size > size:
                raise InvalidInput(
                    f"shared memory '{name}' came with {byte_size} bytes at {offset}, but '{key}' has only {size}",
                    region=name,
                )
        except BaseException:
            os.close(descriptor)
            raise
        self._regions[name] = SharedRegion(name, key, offset, byte_size, descriptor)

    def unregister(self, name: str = "") -> None:
        """Every region when `name` is empty. Repeating it, or an unknown name, is harmless."""
        for known in [name] if name else list(self._regions):
            region = self._regions.pop(known, None)
            if region is not None:
                os.close(region.descriptor)

    def status(self, name: str = "") -> list[SharedRegion]:
        """Every region when `name` is empty; NotFound for an unknown name."""
        return [self._region(name)] if name else list(self._regions.values())

    def read(self, region: str, offset: int, byte_size: int) -> memoryview:
        """A copy of the bytes as they are now. NotFound for an unknown region, InvalidInput for bytes outside it."""
        source = self._inside(region, offset, byte_size)
        data = os.pread(source.descriptor, byte_size, source.offset + offset)
        if len(data) != byte_size:
            raise InvalidInput(
                f"shared memory '{region}' gave {len(data)} of {byte_size} bytes; it was cut since it was registered",
                region=region,
            )
        return memoryview(data)

    def write(self, region: str, offset: int, data: memoryview) -> None:
        """NotFound for an unknown region, InvalidInput for bytes outside it, FailedPrecondition without memory."""
        target = self._inside(region, offset, len(data))
        try:
            written = os.pwrite(target.descriptor, data, target.offset + offset)
        except OSError as error:
            raise FailedPrecondition(f"shared memory '{region}' cannot be written: {error.strerror}") from error
        if written != len(data):
            raise FailedPrecondition(f"shared memory '{region}' took {written} of {len(data)} bytes", region=region)

    def close(self) -> None:
        self.unregister()

    def __contains__(self, name: object) -> bool:
        return name in self._regions

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._regions))

    def _region(self, name: str) -> SharedRegion:
        region = self._regions.get(name)
        if region is None:
            raise NotFound(f"shared memory '{name}' is not registered", region=name)
        return region

    def _inside(self, name: str, offset: int, byte_size: int) -> SharedRegion:
        region = self._region(name)
        if offset < 0 or byte_size < 0 or offset + byte_size > region.byte_size:
            raise InvalidInput(
                f"{byte_size} bytes at {offset} are outside shared memory '{name}', which has {region.byte_size} bytes",
                region=name,
            )
        return region

    def _open(self, name: str, key: str) -> int:
        path = FOLDER / component(name, key)
        if not f"/{path.name}".startswith(self._allowed):
            raise Denied(
                f"shared memory '{key}' is not allowed; allowed prefixes: {', '.join(self._allowed) or 'none'}",
                region=name,
                key=key,
            )
        try:
            return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise NotFound(f"shared memory object '{key}' does not exist", region=name, key=key) from None
        except OSError as error:
            raise Denied(f"shared memory '{key}' cannot be opened: {error.strerror}", region=name, key=key) from None


def component(name: str, key: str) -> str:
    """The file that shm_open means; InvalidInput unless it is a single path component after an optional "/"."""
    file = key.removeprefix("/")
    if not file or "/" in file or file in (".", "..") or not file.isprintable() or len(file.encode()) > 255:
        raise InvalidInput(
            f"shared memory '{name}' came with key {key[:80]!r}, expected '/' and one name of at most 255 bytes",
            region=name,
        )
    return file


def size_of(name: str, descriptor: int) -> int:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise Denied(f"shared memory '{name}' is no regular object", region=name)
    return found.st_size
