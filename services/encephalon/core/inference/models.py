"""The domain behind the Open Inference Protocol: what a region and a coordinator say and do, free of gRPC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from encephalon.core.contract import Contract
from encephalon.core.wire import InferRequest, InferResponse

__all__ = [
    "BatchStatistics",
    "Duration",
    "ModelDescription",
    "ModelIndexEntry",
    "ModelState",
    "ModelStatistics",
    "Models",
    "Step",
]

ModelState = Literal["READY", "LOADING", "UNAVAILABLE"]
LoadParameter = bool | int | str | bytes


@dataclass(frozen=True, slots=True)
class Step:
    """One region of a brain, as ModelConfig's ensemble scheduling shows it: its tensors to names of activations."""

    model_name: str
    input_map: Mapping[str, str]
    output_map: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What ModelMetadata and ModelConfig answer. `max_batch` in rows, 0 = not batched; `max_delay_s` in seconds."""

    name: str
    versions: tuple[str, ...]
    platform: str
    contract: Contract
    max_batch: int = 0
    max_delay_s: float = 0.0
    replicas: int = 1
    parameters: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()


@dataclass(slots=True)
class Duration:
    """How often, and how many nanoseconds in total."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int, count: int = 1) -> None:
        self.count += count
        self.ns += ns


@dataclass(slots=True)
class BatchStatistics:
    """Executions of one batch size (rows)."""

    batch_size: int
    compute_infer: Duration = field(default_factory=Duration)


@dataclass(slots=True)
class ModelStatistics:
    """Counters of one version of one model, as ModelStatistics of the protocol wants them."""

    name: str
    version: str
    last_inference_ms: int = 0
    inference_count: int = 0
    execution_count: int = 0
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)
    batches: dict[int, BatchStatistics] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelIndexEntry:
    """One line of RepositoryIndex; `reason` says why a model is not ready."""

    name: str
    version: str
    state: ModelState
    reason: str = ""


class Models(Protocol):
    """What a server of the protocol serves. Errors are those of `core.errors`."""

    def server_name(self) -> str: ...

    def ready(self) -> bool:
        """True when every model that should be served can answer now."""
        ...

    def model_ready(self, name: str, version: str = "") -> bool:
        """NotFound for an unknown model or version; an empty version means the one in service."""
        ...

    def describe(self, name: str, version: str = "") -> ModelDescription:
        """NotFound for an unknown model or version."""
        ...

    def statistics(self, name: str = "", version: str = "") -> Sequence[ModelStatistics]:
        """Of every model when `name` is empty."""
        ...

    def index(self) -> Sequence[ModelIndexEntry]: ...

    async def infer(self, request: InferRequest, deadline: float | None = None) -> InferResponse:
        """Answers one request; `deadline` is a time of the event loop's monotonic clock (seconds).

        None means the server's default. Cancelling the awaiting task stops the work everywhere.
        """
        ...

    async def load(self, name: str, parameters: Mapping[str, LoadParameter]) -> None:
        """Loads or replaces a model; on failure the old one is kept and the error says why."""
        ...

    async def unload(self, name: str, parameters: Mapping[str, LoadParameter]) -> None: ...
