"""Which instances of which regions are there: announced under leases in a key-value store, found and followed by brain.

Knows nothing of what an instance does. Here, and nowhere else, are the keys and records of discovery checked.
"""

from encephalon.api.discovery.v1.instance_pb2 import Instance
from encephalon.discovery.announcement import Announcement, announced
from encephalon.discovery.following import watch
from encephalon.discovery.record import resolve

__all__ = ["Announcement", "Instance", "announced", "resolve", "watch"]
