"""What a writer makes of a draft before it is written, and whether two records say the same."""

from __future__ import annotations

from typing import Final

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.version import installed_version
from encephalon.library.records.checks import check_draft
from encephalon.library.store.author import author
from encephalon.library.store.entries import bytes_of

__all__ = ["finished", "says"]

_NOT_SAID: Final = ("id", "created_time", "created_by", "code_version")


def finished(draft: pb.Record) -> pb.Record:
    """With time, author and code version, and a brain's networks among its parents; without a number. InvalidInput."""
    record = pb.Record()
    record.CopyFrom(draft)
    record.id.version = 0
    known = {bytes_of(parent.record) for parent in record.parents}
    for _, network in sorted(record.brain.networks.items()) if record.HasField("brain") else ():
        if bytes_of(network) not in known:
            known.add(bytes_of(network))
            record.parents.add(role="network").record.CopyFrom(network)
    check_draft(record)
    record.created_time.GetCurrentTime()
    record.created_by = author()
    record.code_version = record.code_version or f"encephalon {installed_version()}"
    return record


def says(record: pb.Record) -> bytes:
    """Equal for two records that say the same, whoever wrote them when."""
    said = pb.Record()
    said.CopyFrom(record)
    for name in _NOT_SAID:
        said.ClearField(name)
    return bytes_of(said)
