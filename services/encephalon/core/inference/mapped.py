"""The slots of a `Lender` are looked at where they lie, instead of being copied out through a descriptor and back.

Touching mapped memory that somebody has cut ends the process, which is why `SharedMemory` maps nothing. A lender never
cuts its slots, and nobody but its user can open them; whatever does not look like a slot is read and written as ever.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
from collections.abc import Sequence

from encephalon.core.inference.names import STREAM_REGION_PREFIX
from encephalon.core.shared_memory import SharedMemory

__all__ = ["MappedMemory"]

# A mapping keeps a descriptor of its own; with those of all regions they stay below 1,024, the usual limit.
MAX_MAPPINGS = 256


class MappedMemory(SharedMemory):
    """As `SharedMemory`, but reading a slot gives the memory itself: it may change once the request is answered."""

    def __init__(self, allowed_prefixes: Sequence[str]) -> None:
        super().__init__(allowed_prefixes)
        self._mappings: dict[str, memoryview] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        super().register(name, key, offset, byte_size)
        region = self._region(name)
        slot = name.startswith(STREAM_REGION_PREFIX) and key == f"/{name}" and not offset
        if slot and is_private(region.descriptor) and len(self._mappings) < MAX_MAPPINGS:
            # Without a mapping there is still the descriptor.
            with contextlib.suppress(OSError):
                self._mappings[name] = memoryview(mmap.mmap(region.descriptor, byte_size))

    def unregister(self, name: str = "") -> None:
        # Tensors that still lie in the memory keep it.
        for known in [name] if name else list(self._mappings):
            self._mappings.pop(known, None)
        super().unregister(name)

    def read(self, region: str, offset: int, byte_size: int) -> memoryview:
        """The bytes, which are not copied when they lie in a slot; errors as those of `SharedMemory`."""
        view = self._mapping(region, offset, byte_size)
        if view is None:
            return super().read(region, offset, byte_size)
        return view[offset : offset + byte_size].toreadonly()

    def write(self, region: str, offset: int, data: memoryview) -> None:
        view = self._mapping(region, offset, len(data))
        if view is None:
            super().write(region, offset, data)
        else:
            view[offset : offset + len(data)] = data

    def _mapping(self, name: str, offset: int, byte_size: int) -> memoryview | None:
        """The whole slot; None when there is no mapping, or none that may be touched."""
        view = self._mappings.get(name)
        if view is not None and os.fstat(self._inside(name, offset, byte_size).descriptor).st_size < len(view):
            # It was cut after all: through the descriptor that is an error of this request only.
            del self._mappings[name]
            return None
        return view


def is_private(descriptor: int) -> bool:
    """Whether only this process's user can open the object."""
    found = os.fstat(descriptor)
    return found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o077
