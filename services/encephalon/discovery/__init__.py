"""Which instances of which regions are there, and which versions coordinators serve: announced under leases in a
key-value store, found and followed by brain.

Knows nothing of what an instance does. Here, and nowhere else, are the keys and records of discovery checked.
"""

from encephalon.api.discovery.v1.instance_pb2 import Instance
from encephalon.discovery.announcement import Announcement, announced
from encephalon.discovery.following import watch
from encephalon.discovery.leased import Leased
from encephalon.discovery.record import resolve
from encephalon.discovery.serving import announced_serving, watch_serving

__all__ = [
    "Announcement",
    "Instance",
    "Leased",
    "announced",
    "announced_serving",
    "resolve",
    "watch",
    "watch_serving",
]
