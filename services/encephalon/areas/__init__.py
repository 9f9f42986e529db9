"""The built-in networks of every functional area. A network knows arrays and weights; nothing of regions, pathways or
gRPC.

torch is imported by the area that needs it, when one of its networks is loaded; `diagnostics` needs none.
"""

from encephalon.areas.catalog import load_network, packaged_weights
from encephalon.areas.network import Arrays, Network

__all__ = ["Arrays", "Network", "load_network", "packaged_weights"]
