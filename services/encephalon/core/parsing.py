"""A message of ours out of the bytes of a call."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from encephalon.core.errors import InvalidInput

__all__ = ["parse"]

M = TypeVar("M", bound=Message)


def parse(kind: type[M], message: bytes) -> M:
    """InvalidInput for bytes that are none."""
    try:
        return kind.FromString(message)
    except DecodeError:
        raise InvalidInput(
            f"the message is no {kind.DESCRIPTOR.name} (not protobuf, or text that is not UTF-8)"
        ) from None
