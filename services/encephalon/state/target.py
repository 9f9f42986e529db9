"""The file of a download: PATH.part until all of it is there and right, then PATH."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import uuid
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from encephalon.core.errors import FailedPrecondition

__all__ = ["Target"]

_BLOCK_BYTES: Final = 1024 * 1024
_WAITING: Final = 4


class Target:
    """Plain blocking code. One download at a time has PATH.part; another of the same path has a file of its own."""

    def __init__(self, path: Path) -> None:
        """Raises FailedPrecondition when the file cannot be written."""
        self._path = path
        self._part = path.with_name(f"{path.name}.part")
        self._resumable = True
        with self._writable():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._open()
            self.left = os.fstat(self._file).st_size
            """Bytes that an earlier download has left."""
        self.size = 0
        """Bytes that are there and digested."""
        self._digest = _Digest()

    @property
    def sha256(self) -> str:
        return self._digest.result()

    def resume(self, limit: int) -> None:
        """Digests up to `limit` more of the bytes that are left."""
        end = min(self.left, self.size + limit)
        while self.size < end:
            with self._writable():
                data = os.pread(self._file, min(_BLOCK_BYTES, end - self.size), self.size)
            if not data:
                self.left = self.size
                return
            self._digest.update(data)
            self.size += len(data)

    def write(self, data: bytes) -> None:
        self._digest.update(data)
        rest = memoryview(data)
        with self._writable():
            while rest:
                count = os.pwrite(self._file, rest, self.size)
                self.size, rest = self.size + count, rest[count:]

    def empty(self) -> None:
        """Begins again, without what was there."""
        with self._writable():
            os.ftruncate(self._file, 0)
        self.size = self.left = 0
        self._digest.begin_anew()

    def finish(self) -> None:
        # Not made safe on disk before, which may take as long as the download: the store still has it.
        with self._writable():
            self._part.replace(self._path)

    def discard(self) -> None:
        self._part.unlink(missing_ok=True)

    def close(self) -> None:
        """Harmless after `finish` and `discard`."""
        self._digest.close()
        if not self._resumable:
            self.discard()
        os.close(self._file)

    def _open(self) -> int:
        while True:
            file = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                if self._locked(file):
                    return file
            except BaseException:
                os.close(file)
                raise
            os.close(file)

    def _locked(self, file: int) -> bool:
        """Whether the file is this download's alone, and still there; else the next to try is named."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._part = self._path.with_name(f"{self._path.name}.{uuid.uuid4().hex}.part")
            self._resumable = False
            return False
        with contextlib.suppress(FileNotFoundError):
            # The download that had it may have finished between opening and locking.
            return os.path.samestat(os.fstat(file), self._part.stat())
        return False

    @contextlib.contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise FailedPrecondition(
                f"{self._path} cannot be written: {error.strerror}; make room or choose another place", path=self._path
            ) from error


class _Digest:
    """A SHA-256 in a thread of its own, a few blocks behind: who waits for the network need not wait for it too."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="digest")
        self._waiting: deque[Future[None]] = deque()

    def update(self, data: bytes) -> None:
        """`data` must not change afterwards."""
        self._waiting.append(self._thread.submit(self._hash.update, data))
        if len(self._waiting) > _WAITING:
            self._waiting.popleft().result()

    def result(self) -> str:
        self._settle()
        return self._hash.hexdigest()

    def begin_anew(self) -> None:
        self._settle()
        self._hash = hashlib.sha256()

    def close(self) -> None:
        self._thread.shutdown(wait=True)

    def _settle(self) -> None:
        while self._waiting:
            self._waiting.popleft().result()
