"""What a key-value store promises, whichever it is.

The store has one revision, a number that grows with every change. Every entry carries the revision of its last change,
so compare-and-put is `put(key, value, expected=entry.revision)`, and `expected=ABSENT` creates.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final, Protocol, Self

from encephalon.core.errors import Conflict, InvalidInput

__all__ = [
    "ABSENT",
    "Entry",
    "Event",
    "EventKind",
    "KeyValue",
    "Lease",
    "check_key",
    "check_prefix",
    "check_value",
    "conflict",
    "prefix_end",
]

ABSENT: Final = 0
"""As `expected`: the key must not exist."""

MAX_KEY_BYTES = 4096
# etcd refuses requests above 1.5 MiB; the embedded store keeps to the same bound so that what runs on one runs on the
# other.
MAX_VALUE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    key: str
    value: bytes
    revision: int


class EventKind(enum.Enum):
    PUT = "put"
    DELETE = "delete"
    """Deleted, or its lease has run out."""
    LISTED = "listed"
    """A watch that began with the present state has told all of it; without key and value."""
    RESUMED = "resumed"
    """The store was out of reach and is back, or its history was cut; what has changed meanwhile follows. Without key
    and value.
    """


@dataclass(frozen=True, slots=True)
class Event:
    kind: EventKind
    key: str
    value: bytes
    revision: int


class Lease(Protocol):
    """Keys put under a lease vanish with it. It runs out `ttl_seconds` after the last `keep`."""

    @property
    def ttl_seconds(self) -> float:
        """What the store granted; never less than what was asked, but etcd rounds up to whole seconds (two, with its
        defaults).
        """
        ...

    @property
    def lost(self) -> asyncio.Event:
        """Set when the store has said that the lease is gone; a store out of reach says nothing."""
        ...

    async def keep(self) -> None:
        """Starts the lease's time anew. Raises NotFound when it has run out, Unavailable when the store is out of
        reach.
        """
        ...

    async def revoke(self) -> None:
        """Gives the lease back; its keys vanish at once. Harmless when it is gone already."""
        ...


class KeyValue(Protocol):
    """Keys are non-empty UTF-8 text of at most 4 KiB, values are bytes of at most 1 MiB: else InvalidInput.

    Every call raises Unavailable when the store does not answer within the deadline it was opened with. A `put` or
    `delete` that ends so may have been done; read before repeating one that compares.
    """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...

    async def get(self, key: str) -> Entry | None: ...

    def list(self, prefix: str, *, page: int = 1000) -> AsyncGenerator[Entry, None]:
        """Every entry whose key starts with `prefix` once, in the byte order of keys, fetched `page` at a time."""
        ...

    async def put(self, key: str, value: bytes, *, lease: Lease | None = None, expected: int | None = None) -> int:
        """Writes and returns the new revision. Without `lease` the key stays, even when it was under one.

        Raises Conflict when `expected` is given and is not the entry's revision, NotFound when the lease is gone.
        """
        ...

    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        """Whether there was something to delete. Raises Conflict when `expected` is given and is not the entry's
        revision.
        """
        ...

    async def lease(self, ttl_seconds: float) -> Lease: ...

    def watch(self, prefix: str, from_revision: int | None = None) -> AsyncGenerator[Event, None]:
        """Every change below `prefix`, in order, for ever; close it (`contextlib.aclosing`) to stop.

        Without `from_revision`: first a PUT for every present entry, then LISTED, then the changes. With it: the
        changes from that revision on; FailedPrecondition when the store's history no longer, or not yet, reaches
        there.

        While the store is out of reach the watch waits and tries again; when it is back, RESUMED and what was missed
        follow. Where the history was cut, or the store came back with other data, that is the difference between what
        this watch has told and what is there now: no entry is left wrong, though steps in between may not be told.
        """
        ...

    async def compact(self, revision: int) -> None:
        """Forgets the history before `revision`; the entries stay."""
        ...


def check_key(key: str) -> bytes:
    """The key as UTF-8; InvalidInput when empty, too long or not text."""
    if not key:
        raise InvalidInput("a key must not be empty")
    return check_prefix(key)


def check_prefix(prefix: str) -> bytes:
    try:
        encoded = prefix.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"the key {prefix!r} is not valid Unicode: {error.reason}") from None
    if len(encoded) > MAX_KEY_BYTES:
        raise InvalidInput(f"the key {prefix[:40]!r}... has {len(encoded)} bytes, at most {MAX_KEY_BYTES} are allowed")
    return encoded


def check_value(key: str, value: bytes) -> bytes:
    if len(value) > MAX_VALUE_BYTES:
        raise InvalidInput(
            f"the value of {key!r} has {len(value)} bytes, at most {MAX_VALUE_BYTES} are allowed; "
            "keep large things as objects"
        )
    return value


def prefix_end(prefix: bytes) -> bytes:
    """The first byte string after all that start with `prefix`; b"" when there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else b""


def conflict(key: str, expected: int, found: int) -> Conflict:
    wanted = "to be absent" if expected == ABSENT else f"at revision {expected}"
    actual = "absent" if found == ABSENT else f"at revision {found}"
    return Conflict(
        f"{key!r} was expected {wanted} and is {actual}; read it again", key=key, expected=expected, found=found
    )
