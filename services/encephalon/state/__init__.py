"""Keeps keys, values, leases and objects, in etcd and MinIO or in files. Knows nothing of regions, brains or networks.

`open_key_value` and `open_objects` are the doors; what they give behaves the same whichever store is behind it, which
`tests/contract` proves. Everything is an async context manager, every call has a deadline, nothing queues without
bound.
"""

from encephalon.state.key_value import ABSENT, Change, Entry, Event, EventKind, KeyValue, Lease, Unchanged
from encephalon.state.objects import ObjectEntry, ObjectInfo, Objects, read
from encephalon.state.open import open_key_value, open_objects

__all__ = [
    "ABSENT",
    "Change",
    "Entry",
    "Event",
    "EventKind",
    "KeyValue",
    "Lease",
    "ObjectEntry",
    "ObjectInfo",
    "Objects",
    "Unchanged",
    "open_key_value",
    "open_objects",
    "read",
]
