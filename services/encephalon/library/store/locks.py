"""Files by which processes take turns; who dies gives its turn back."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["locked", "try_lock"]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Waits; for short steps. The file stays."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def try_lock(path: Path) -> BinaryIO | None:
    """The file, new or emptied and held until it is closed; None when somebody holds it. Remove it before it is
    closed.
    """
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Who held it before may have removed it since it was opened here; then this is not the file of that name.
        if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
            file.truncate(0)
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    file.close()
    return None
