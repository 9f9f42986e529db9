"""The file of an upload: read once, in order, while its digest is taken."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import re
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

from encephalon.core.errors import InvalidInput

__all__ = ["Source", "check_sha256"]


class Source:
    """Plain blocking code. The file stays open until `drop` was called as often as `hold`, and once more."""

    def __init__(self, path: Path, sha256: str) -> None:
        """Raises InvalidInput when the file cannot be read."""
        self.sha256 = check_sha256(sha256)
        self._path = path
        with _readable(path):
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._holders, self._lock = 1, threading.Lock()
        try:
            with _readable(path):
                status = os.fstat(self._file)
            if not stat.S_ISREG(status.st_mode):
                raise InvalidInput(f"{path} is not a file; give the path of one")
            self.size = status.st_size
            self.owner = self._owner(status)
        except BaseException:
            self.drop()
            raise
        self._at = 0
        self._digest = hashlib.sha256()

    def _owner(self, status: os.stat_result) -> str:
        """The same for each upload of this file by this machine, but another for one beside a running one."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            # Somebody else uploads it now (or the file system knows no locks).
            return os.urandom(16).hex()
        return f"{platform.node()} {_machine()} {self._path.resolve()} {status.st_ino}"

    def hold(self) -> None:
        with self._lock:
            self._holders += 1

    def drop(self) -> None:
        with self._lock:
            self._holders -= 1
            if self._holders == 0:
                os.close(self._file)

    def read(self, buffer: memoryview) -> None:
        """Fills the buffer with what comes next."""
        filled = 0
        while filled < len(buffer):
            with _readable(self._path):
                count = os.preadv(self._file, [buffer[filled:]], self._at)
            if not count:
                raise InvalidInput(f"{self._path} has become shorter than {self.size} bytes while it was uploaded")
            self._digest.update(buffer[filled : filled + count])
            filled, self._at = filled + count, self._at + count

    def verify(self) -> None:
        """After the last read. Raises InvalidInput when the bytes are not those that were announced."""
        if (found := self._digest.hexdigest()) != self.sha256:
            raise InvalidInput(
                f"{self._path} has the SHA-256 {found}, not {self.sha256} as was said; it has changed, or that is the "
                "digest of another file",
                found=found,
                expected=self.sha256,
            )


def check_sha256(sha256: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise InvalidInput(f"a SHA-256 has 64 lower-case hexadecimal digits, not {sha256!r}")
    return sha256


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}", path=path) from error


def _machine() -> str:
    with contextlib.suppress(OSError):
        return Path("/etc/machine-id").read_text().strip()
    return ""
