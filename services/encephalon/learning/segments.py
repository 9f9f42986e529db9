"""Memory that two processes of one machine share, for gradients on their way and parameters to be read.

A segment is an anonymous file (memfd_create): it has no name in any file system, so nothing is left of it when the last
process that has it open is gone, however it died, and it is not bound by the size of /dev/shm, which is 64 MiB in many
containers. Another process opens it through /proc, which the kernel allows to the same user only. It is sealed against
shrinking, so that a mapping of it never ends a process with SIGBUS.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
import stat
import sys
import threading
import weakref
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.core.errors import Denied, FailedPrecondition

__all__ = ["PAGE", "Mapped", "Segment", "created", "opened", "supported"]

PREFIX: Final = "encephalon-"
PAGE: Final = 4096
"""Before the data of a segment lie words of 8 bytes, on a page of their own."""
SEALS: Final = 0 if sys.platform != "linux" else fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def supported() -> bool:
    return hasattr(os, "memfd_create")


class Segment:
    """Open, and read and written through the descriptor: no page of it counts as memory of this process."""

    def __init__(self, descriptor: int, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self._descriptor = descriptor
        # Else a thread could write to another file that got the number of one that was closed meanwhile.
        self._lock = threading.Lock()
        self._closed = weakref.finalize(self, os.close, descriptor)

    def described(self) -> pb.Memory:
        """For the process that shall open it."""
        return pb.Memory(process=os.getpid(), descriptor=self._descriptor, name=self.name, bytes=self.size)

    def write(self, offset: int, values: torch.Tensor) -> None:
        """float32, 1-D, contiguous; `offset` in bytes. FailedPrecondition, as of every method, when it is closed."""
        data = values.numpy().data.cast("B")
        if offset < PAGE or offset + len(data) > self.size:
            raise ValueError(f"{len(data)} bytes at {offset} are outside a segment of {self.size}")
        with self._lock:
            while data:
                done = os.pwrite(self._open(), data, offset)
                data, offset = data[done:], offset + done

    def read(self, offset: int, into: torch.Tensor) -> None:
        """As `write`."""
        data = into.numpy().data.cast("B")
        if offset < PAGE or offset + len(data) > self.size:
            raise ValueError(f"{len(data)} bytes at {offset} are outside a segment of {self.size}")
        with self._lock:
            while data:
                done = os.preadv(self._open(), [data], offset)
                data, offset = data[done:], offset + done

    def words(self, count: int) -> tuple[int, ...]:
        """The first ones, as they are now."""
        with self._lock:
            data = os.pread(self._open(), 8 * count, 0)
        return tuple(np.frombuffer(data, np.int64).tolist())

    def mapped(self) -> Mapped:
        with self._lock:
            return Mapped(mmap.mmap(self._open(), self.size))

    def close(self) -> None:
        """What is mapped stays mapped. Closing twice is harmless; the last one who has the segment does it anyway."""
        with self._lock:
            self._closed()
            self._descriptor = -1

    def _open(self) -> int:
        if self._descriptor < 0:
            raise FailedPrecondition(f"shared memory {self.name} was closed")
        return self._descriptor


class Mapped:
    """A segment as tensors; it is mapped as long as one of them is alive."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self.words: npt.NDArray[np.int64] = np.frombuffer(memory, np.int64, PAGE // 8)
        self.size = len(memory)

    def view(self) -> memoryview:
        """What `tensor` cuts tensors from: a new object, that is alive as long as one of them is."""
        return memoryview(self._memory)

    def tensor(self, view: memoryview, offset: int, count: int) -> torch.Tensor:
        """float32, 1-D; `offset` in bytes."""
        if offset < PAGE or offset % 4 or offset + 4 * count > self.size:
            raise FailedPrecondition(
                f"{count} elements at byte {offset} are outside shared memory of {self.size} bytes"
            )
        return torch.frombuffer(view, dtype=torch.float32, count=count, offset=offset)


def created(data_bytes: int) -> Segment:
    """With a first page of zeros and `data_bytes` of data behind it."""
    name = PREFIX + secrets.token_hex(8)
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.fchmod(descriptor, 0o600)
        os.ftruncate(descriptor, PAGE + data_bytes)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return Segment(descriptor, name, PAGE + data_bytes)


def opened(memory: pb.Memory, *, write: bool) -> Segment:
    """What another process has described. Denied when it is anything else than that, or not ours to open."""
    if not supported():
        raise Denied("this system has no memory that processes could share")
    path = f"/proc/{memory.process}/fd/{memory.descriptor}"
    wanted = f"/memfd:{memory.name} (deleted)"
    try:
        # Looked at before it is opened: opening anything else (a terminal, a pipe) could have an effect.
        if not memory.name.startswith(PREFIX) or os.readlink(path) != wanted:
            raise Denied(f"what process {memory.process} offers as shared memory is none of ours")
        descriptor = os.open(path, (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise Denied(f"shared memory of process {memory.process} cannot be opened: {error.strerror}") from error
    try:
        _check(descriptor, memory)
    except BaseException:
        os.close(descriptor)
        raise
    return Segment(descriptor, memory.name, memory.bytes)


def _check(descriptor: int, memory: pb.Memory) -> None:
    found = os.fstat(descriptor)
    regular = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
    if not regular or os.readlink(f"/proc/self/fd/{descriptor}") != f"/memfd:{memory.name} (deleted)":
        raise Denied(f"what process {memory.process} offers as shared memory is none of ours")
    if found.st_size != memory.bytes or memory.bytes <= PAGE:
        raise Denied(f"shared memory came with {memory.bytes} bytes, it has {found.st_size}; more than {PAGE} expected")
    if fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & SEALS != SEALS:
        raise Denied("shared memory came that is not sealed against shrinking")
