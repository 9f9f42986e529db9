"""What a key-value store promises, whichever it is.

The store has one revision, a number that grows with every change. Every entry carries the revision of its last change,
so compare-and-put is `put(key, value, expected=entry.revision)`, and `expected=ABSENT` creates.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, Self

from encephalon.core.errors import Conflict, InvalidInput

__all__ = [
    "ABSENT",
    "Change",
    "Entry",
    "Event",
    "EventKind",
    "KeyValue",
    "Lease",
    "Unchanged",
    "check_commit",
    "check_key",
    "check_prefix",
    "check_value",
    "conflict",
    "prefix_end",
    "scan_start",
]

ABSENT: Final = 0
"""As `expected`: the key must not exist."""

MAX_KEY_BYTES = 4096
# etcd refuses requests above 1.5 MiB; the embedded store keeps to the same bound so that what runs on one runs on the
# other.
MAX_VALUE_BYTES = 1024 * 1024
# etcd takes 128 operations in one transaction, and a transaction names its keys up to three times.
MAX_COMMIT_ITEMS = 100
MAX_COMMIT_KEY_BYTES = 128 * 1024


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


@dataclass(frozen=True, slots=True)
class Change:
    """One of the changes of a commit."""

    key: str
    value: bytes | None
    """None deletes; deleting what is absent changes nothing."""
    expected: int | None = None
    """The revision that the entry must have, or ABSENT; None takes whatever is there."""
    lease: Lease | None = None
    """Without one the key stays, even when it was under one."""


@dataclass(frozen=True, slots=True)
class Unchanged:
    """A condition of a commit on a key that it leaves alone."""

    key: str
    expected: int
    """The revision that the entry must have, or ABSENT."""


class KeyValue(Protocol):
    """Keys are non-empty UTF-8 text of at most 4 KiB, values are bytes of at most 1 MiB: else InvalidInput.

    Every call raises Unavailable when the store does not answer within the deadline it was opened with. A `put`,
    `delete` or `commit` that ends so, or is cancelled, may have been done (a commit as a whole or not at all); read
    before repeating one that compares.
    """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...

    async def get(self, key: str) -> Entry | None: ...

    def list(self, prefix: str, *, page: int = 1000) -> AsyncGenerator[Entry, None]:
        """Every entry whose key starts with `prefix` once, in the byte order of keys, fetched `page` at a time.

        An entry that comes or goes meanwhile may be in it or not.
        """
        ...

    def pages(self, prefix: str, *, page: int = 1000, after: str = "") -> AsyncGenerator[Sequence[Entry], None]:
        """As `list`, at most `page` entries at once (fewer where they are large); only keys behind `after`."""
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

    async def commit(self, changes: Sequence[Change | Unchanged]) -> int:
        """Does all the changes in one revision, or none, and returns the store's revision behind them.

        Raises Conflict with the first key whose `expected` is not what is there (details `key`, `expected`, `found`),
        and NotFound when a lease is gone. InvalidInput when there is nothing to do, a key is named twice, or there are
        more than 100 items, 1 MiB of values or 128 KiB of keys. A watch tells the changes in the order given.
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


def check_commit(items: Sequence[Change | Unchanged]) -> None:
    """InvalidInput when the items are not what one commit may hold."""
    if not items:
        raise InvalidInput("a commit needs at least one change or condition")
    if len(items) > MAX_COMMIT_ITEMS:
        raise InvalidInput(f"a commit has {len(items)} items, at most {MAX_COMMIT_ITEMS} are allowed; split it")
    seen: set[str] = set()
    key_bytes = value_bytes = 0
    for item in items:
        key_bytes += len(check_key(item.key))
        if item.key in seen:
            raise InvalidInput(f"a commit names {item.key!r} twice; give each key one item")
        seen.add(item.key)
        if isinstance(item, Change) and item.value is not None:
            value_bytes += len(check_value(item.key, item.value))
    for what, found, allowed in (("keys", key_bytes, MAX_COMMIT_KEY_BYTES), ("values", value_bytes, MAX_VALUE_BYTES)):
        if found > allowed:
            raise InvalidInput(f"the {what} of a commit have {found} bytes, at most {allowed} are allowed; split it")


def scan_start(prefix: bytes, after: str) -> bytes:
    """Where a list of `prefix` begins that leaves out the keys up to `after`."""
    return max(prefix, check_prefix(after) + b"\x00") if after else prefix


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
