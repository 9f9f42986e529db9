"""A connection to a coordinator, or to any server of the Open Inference Protocol."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from numpy.typing import ArrayLike

from encephalon.api.coordinator.v1 import coordinator_pb2
from encephalon.client.answer import Answer
from encephalon.client.conversion import to_tensors
from encephalon.client.description import BrainDescription
from encephalon.core.contract import Contract
from encephalon.core.errors import EncephalonError, InvalidInput, NotFound, Unavailable
from encephalon.core.inference import InferenceClient
from encephalon.core.status import from_rpc_error
from encephalon.core.wire import InferRequest, Parameter

__all__ = ["DEFAULT_TIMEOUT_S", "Brains", "connect"]

DEFAULT_TIMEOUT_S = 30.0
DESCRIBE = "/encephalon.api.coordinator.v1.CoordinatorService/DescribeBrain"
