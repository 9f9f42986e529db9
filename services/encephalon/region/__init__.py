"""A region of a brain: an actor that runs one network behind one mailbox, and the process that serves it.

The actor knows networks, tensors and versions, and no gRPC; `service` joins it with a server and with discovery.
"""

from encephalon.region.actor import RegionActor
from encephalon.region.source import Config, Source
from encephalon.region.version import Version

__all__ = ["Config", "RegionActor", "Source", "Version"]
