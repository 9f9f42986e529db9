"""The state of a run as the store has it. Imports no torch."""

from __future__ import annotations

import zlib
from typing import Final

from google.protobuf.message import DecodeError

from encephalon.api.training.v1.training_pb2 import RunState
from encephalon.core.errors import Corrupt

__all__ = ["packed", "unpacked"]

PLAIN_BYTES: Final = 128 << 10
"""A larger state is compressed: a store takes 1 MiB, and thousands of tensors on several shards, whose names and slices
stand in layout and checkpoints, are more than that, of which a tenth is left."""
MOST_BYTES: Final = 64 << 20
MARK: Final = b"\x78"
"""With which zlib begins; no RunState does, for none has a number as field 15."""


def packed(state: RunState) -> bytes:
    """The same bytes for the same state."""
    value = state.SerializeToString(deterministic=True)
    return value if len(value) <= PLAIN_BYTES else zlib.compress(value)


def unpacked(value: bytes, run: str) -> RunState:
    """Corrupt when it is not what `packed` has made. run: for the sentence."""
    try:
        return RunState.FromString(_inflated(value) if value[:1] == MARK else value)
    except (DecodeError, zlib.error):
        raise Corrupt(f"the state of run '{run}' cannot be read", run=run) from None


def _inflated(value: bytes) -> bytes:
    inflating = zlib.decompressobj()
    found = inflating.decompress(value, MOST_BYTES)
    if not inflating.eof:
        raise zlib.error("cut off, or too large")
    return found
