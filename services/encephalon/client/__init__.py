"""Asks brains from a Python program: numpy in, numpy out. Knows the wire, and nothing of how a brain is run."""

from encephalon.client.answer import Answer
from encephalon.client.blocking import BlockingBrains, connect_blocking
from encephalon.client.brains import Brains, connect
from encephalon.client.description import BrainDescription, PendingVersion, RegionDescription, ReplicaDescription

__all__ = [
    "Answer",
    "BlockingBrains",
    "BrainDescription",
    "Brains",
    "PendingVersion",
    "RegionDescription",
    "ReplicaDescription",
    "connect",
    "connect_blocking",
]
