"""SHA-256 in a thread of its own, beside the one that moves the bytes: taking it costs more than moving them."""

from __future__ import annotations

import hashlib
import queue
import threading
from typing import Final

__all__ = ["Digesting"]

# Chunks of about 1 MiB that may wait.
_WAITING: Final = 16


class Digesting:
    """`close` ends the thread; harmless twice."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._chunks: queue.Queue[bytes | memoryview | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._work, name="sha256", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (chunk := self._chunks.get()) is not None:
            self._digest.update(chunk)
            self._chunks.task_done()

    def update(self, chunk: bytes | memoryview) -> None:
        """Waits when the digest falls behind. The chunk must stay as it is until `hexdigest` was called."""
        self._chunks.put(chunk)

    def hexdigest(self) -> str:
        """Of all so far."""
        self._chunks.join()
        return self._digest.hexdigest()

    def close(self) -> None:
        if self._thread.is_alive():
            self._chunks.put(None)
            self._thread.join()
