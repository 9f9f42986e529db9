"""Finds garbage: objects that no record reaches, old enough, and in no living writer's hands.

Only what was entered here is looked at. Bytes without an entry were put by others: a brain that runs from a file keeps
its weights in the same bucket, and so may another library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.library.records.bounds import DIGEST
from encephalon.library.store.entries import message_or_none
from encephalon.library.store.reaching import reached
from encephalon.library.store.stores import Stores
from encephalon.state import ABSENT, Entry

__all__ = ["Garbage", "Survey"]


@dataclass(frozen=True, slots=True)
class Garbage:
    sha256: str
    size: int
    revision: int
    """Of its entry."""


@dataclass(frozen=True, slots=True)
class Survey:
    total: int
    """Objects that are there."""
    unreached: int
    garbage: Sequence[Garbage]

    @classmethod
    async def taken(cls, stores: Stores, grace_s: float) -> Survey:
        """By a registered writer, whose own key must be older than the first look at the objects.

        The records are read last: what a writer that was seen, or has ended before, holds is named by then or is
        spared; who comes later touches what it holds, which shows when the entry is to be doomed.
        """
        writers = {entry.key: entry.revision async for entry in stores.key_value.list(stores.keys.writers)}
        look = _Look(stores, writers, datetime.now(UTC) - timedelta(seconds=grace_s) if grace_s else None)
        async for entry in stores.key_value.list(stores.keys.objects):
            look.at_entry(entry)
        needed = await reached(stores)
        garbage = [found for found in look.candidates if bytes.fromhex(found.sha256) not in needed]
        return cls(len(look.known), len(look.known - needed), garbage)


class _Look:
    def __init__(self, stores: Stores, writers: dict[str, int], cutoff: datetime | None) -> None:
        self._stores = stores
        self._writers = writers
        self._horizon = min(writers.values(), default=ABSENT)
        self._cutoff = cutoff
        self._forgotten = datetime.now(UTC) - timedelta(seconds=stores.timing.forgotten_s)
        self.known: set[bytes] = set()
        self.candidates: list[Garbage] = []

    def at_entry(self, entry: Entry) -> None:
        sha256 = entry.key.rpartition("/")[2]
        if not DIGEST.fullmatch(sha256):
            return
        self.known.add(bytes.fromhex(sha256))
        found = message_or_none(pb.StoredObject, entry)
        if found is not None and entry.revision < self._horizon and self._is_free(found):
            self.candidates.append(Garbage(sha256, found.size, entry.revision))

    def _is_free(self, found: pb.StoredObject) -> bool:
        try:
            touched = found.touched_time.ToDatetime(UTC)
        except (ValueError, OverflowError):
            return False
        if found.state == pb.StoredObject.STATE_DOOMED:
            # Its deleter died; its last deletion may be under way for a while.
            return self._stores.keys.writer(found.writer) not in self._writers and touched <= self._forgotten
        return self._cutoff is None or touched <= self._cutoff
