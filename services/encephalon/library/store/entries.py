"""What stands in the entries, read with suspicion: anybody may have written there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import structlog
from google.protobuf.message import DecodeError, Message

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import Corrupt, InvalidInput
from encephalon.library.records.kinds import name_of_kind
from encephalon.library.store.keys import Keys
from encephalon.state import Entry

__all__ = ["bytes_of", "message_in", "message_or_none", "record_in", "summary_in"]

_log = structlog.get_logger(__name__)
_Message = TypeVar("_Message", bound=Message)


def bytes_of(message: Message) -> bytes:
    """Equal messages give equal bytes."""
    return message.SerializeToString(deterministic=True)


def message_in(kind: type[_Message], entry: Entry) -> _Message:
    """Raises Corrupt when the bytes are no such message."""
    try:
        return kind.FromString(entry.value)
    except DecodeError:
        raise Corrupt(
            f"the key {entry.key} is damaged: its bytes are no {kind.DESCRIPTOR.name}; see `library verify`",
            key=entry.key,
        ) from None


def message_or_none(kind: type[_Message], entry: Entry | None) -> _Message | None:
    """None when there is no entry; None, and a line in the log, when it is damaged."""
    if entry is None:
        return None
    try:
        return message_in(kind, entry)
    except Corrupt as error:
        _log.warning("a damaged entry of the library is skipped", key=entry.key, cause=str(error))
        return None


def record_in(keys: Keys, entry: Entry) -> pb.Record:
    """Raises Corrupt when the bytes are no record, or one of another key."""
    record = message_in(pb.Record, entry)
    if not _stands_at(record.id, keys.record, entry.key) or record.WhichOneof("body") != name_of_kind(record.id.kind):
        raise Corrupt(
            f"the key {entry.key} is damaged: its record belongs elsewhere; see `library verify`", key=entry.key
        )
    return record


def summary_in(keys: Keys, entry: Entry) -> pb.Summary:
    """Raises Corrupt when the bytes are no summary, or one of another key."""
    summary = message_in(pb.Summary, entry)
    if not _stands_at(summary.id, keys.summary, entry.key):
        raise Corrupt(
            f"the key {entry.key} is damaged: its summary belongs elsewhere; see `library verify`", key=entry.key
        )
    return summary


def _stands_at(id: pb.Reference, key_of: Callable[[pb.Reference], str], key: str) -> bool:
    try:
        return key_of(id) == key
    except InvalidInput:
        return False
