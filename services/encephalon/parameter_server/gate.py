"""Many may read, or one may write."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Gate"]


class Gate:
    """A writer waits for the readers that are there; readers that come later wait for the writer."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._readers = 0
        self._writing = False

    @contextmanager
    def reading(self) -> Iterator[None]:
        with self._free:
            self._free.wait_for(lambda: not self._writing)
            self._readers += 1
        try:
            yield
        finally:
            with self._free:
                self._readers -= 1
                self._free.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        with self._free:
            self._free.wait_for(lambda: not self._writing)
            self._writing = True
            self._free.wait_for(lambda: self._readers == 0)
        try:
            yield
        finally:
            with self._free:
                self._writing = False
                self._free.notify_all()
