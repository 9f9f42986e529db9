"""Where a local brain keeps what: state that outlives it, and sockets that do not."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from encephalon.core.errors import FailedPrecondition
from encephalon.state.embedded import default_state_dir, key_value_url, objects_url, prepare, unwritable

__all__ = ["Folders", "default_state_dir", "runtime_folder"]

LONGEST_SOCKET_PATH = 107  # sun_path of unix(7) has 108 bytes, the last one is the terminating zero
LONGEST_SOCKET_NAME = len("/99999.sock")


@dataclass(frozen=True, slots=True)
class Folders:
    """The layout of a state folder; several brains share its stores, each has a folder of its own beside them."""

    base: Path

    @property
    def state_url(self) -> str:
        return key_value_url(self.base)

    @property
    def objects_url(self) -> str:
        return objects_url(self.base)

    @property
    def brains(self) -> Path:
        return self.base / "brains"

    def brain(self, name: str) -> Path:
        return self.brains / name

    def prepare(self, name: str = "") -> None:
        """Makes the folders, with those of a brain; FailedPrecondition when that is not allowed."""
        prepare(self.base)
        if not name:
            return
        try:
            (self.brain(name) / "logs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.base, error) from error


@contextmanager
def runtime_folder() -> Iterator[Path]:
    """A private folder for sockets, with a path so short that the kernel takes the sockets' names; gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="enc-", dir=short_base()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def short_base() -> Path:
    needed = len("/enc-") + 8 + LONGEST_SOCKET_NAME
    candidates = [os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir(), "/tmp"]  # noqa: S108 - mkdtemp makes it private
    for candidate in candidates:
        if candidate and os.access(candidate, os.W_OK) and len(os.fsencode(candidate)) + needed <= LONGEST_SOCKET_PATH:
            return Path(candidate)
    raise FailedPrecondition("no writable folder has a path short enough for Unix sockets; set TMPDIR to a short one")
