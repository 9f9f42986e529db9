"""What a file of some kind must say for itself before it is decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from encephalon.api.library.v1 import library_pb2 as pb

__all__ = ["Facts", "Media", "Unreadable"]

Facts = tuple[int, int, int]
"""Of a picture: height, width, channels. Of a sound: frames, Hz, channels."""


class Unreadable(Exception):
    """One file cannot be taken; the message completes "photo.png ..."."""


class Media(Protocol):
    """Pictures or sounds of one modality: first all are examined, then the modality is settled, then each is
    decoded."""

    def examine(self, path: Path) -> Facts:
        """Reads the header only. Raises `Unreadable`."""
        ...

    def settle(self, name: str, facts: NDArray[np.int64]) -> pb.Modality:
        """The modality that holds all files whose facts are the rows [N, 3]. Raises `InvalidInput` when there is
        none."""
        ...

    def decode(self, path: Path) -> NDArray[Any]:
        """The file as the settled modality has it. Raises `Unreadable`."""
        ...

    def bytes_of(self, facts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of each file when decoded, about."""
        ...
