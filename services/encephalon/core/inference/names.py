"""The names by which both sides know the protocol and what we add to it."""

from __future__ import annotations

__all__ = ["CANCEL", "CANCEL_EXTENSION", "SERVICE", "STREAM_MEMORY_EXTENSION", "method"]

SERVICE = "inference.GRPCInferenceService"

# A request with this parameter (true) stops the one of the same id on the same stream.
CANCEL = "cancel"
CANCEL_EXTENSION = "encephalon.cancel"

# Outputs may be written to the region of shared memory that a request on a stream names by these parameters.
STREAM_MEMORY_EXTENSION = "encephalon.stream_shared_memory"
OUTPUT_REGION = "encephalon.output_region"
OUTPUT_BYTE_SIZE = "encephalon.output_byte_size"
# Regions that belong to a stream and are unregistered when it ends.
STREAM_REGION_PREFIX = "encephalon-"


def method(name: str) -> str:
    """The path of a method: what a channel calls."""
    return f"/{SERVICE}/{name}"
