"""The Open Inference Protocol, once for every server and every caller: service, client and the domain's interface.

Knows gRPC and the wire; of regions, brains and networks it knows only `Models`.
"""

from encephalon.core.inference.client import InferenceClient, ServerDescription
from encephalon.core.inference.instant import Instant
from encephalon.core.inference.link import link_path, linked
from encephalon.core.inference.mapped import MappedMemory
from encephalon.core.inference.models import (
    BatchStatistics,
    Duration,
    LoadParameter,
    ModelDescription,
    ModelIndexEntry,
    Models,
    ModelState,
    ModelStatistics,
    Step,
)
from encephalon.core.inference.names import CANCEL_EXTENSION, SERVICE
from encephalon.core.inference.reflection import descriptors
from encephalon.core.inference.service import InferenceService
from encephalon.core.inference.stream import InferStream

__all__ = [
    "CANCEL_EXTENSION",
    "SERVICE",
    "BatchStatistics",
    "Duration",
    "InferStream",
    "InferenceClient",
    "InferenceService",
    "Instant",
    "LoadParameter",
    "MappedMemory",
    "ModelDescription",
    "ModelIndexEntry",
    "ModelState",
    "ModelStatistics",
    "Models",
    "ServerDescription",
    "Step",
    "descriptors",
    "link_path",
    "linked",
]
