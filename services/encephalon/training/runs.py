"""What a run is told to do, and where its settings, state and wish to stop are kept. Imports no torch."""

from __future__ import annotations

from typing import Any, Final, Literal, Self
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from encephalon.core.errors import Corrupt, InvalidInput

__all__ = ["INSTANCES", "RunSettings", "keys_of", "prefix_of"]

INSTANCES: Final = "training:"
"""Before the run's name where discovery has a brain's. Its regions are `controller`, `shard-N` and, of a pipeline,
`WORKER.REGION`."""


class RunSettings(BaseModel):
    """Everything that decides what a run computes and keeps; written once, as JSON, under the run's `settings` key."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    run: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    """Its name, unique in the namespace."""
    brain: str
    """Reference with its version, for example brain:digits@1."""
    data: str
    """Reference with its version, for example data_set:avmnist@2."""
    library: str = "default"
    """Namespace of the library in the stores."""

    split: str = ""
    """That is learned from; "" is `train`, or the only one there is."""
    validation: str = "0.1"
    """A split, or the share (0 to 1) of the training split that is held out; "" judges nothing while it learns."""
    test: str = ""
    """Split that is judged once at the end; "" is `test` unless it is learned from; "none" judges nothing."""
    inputs: dict[str, str] = {}
    """Brain input to the modality that feeds it; by default that of the same name. An optional one may be left out."""
    label: str = ""
    """Modality with the class, or the target of mse; "" is the only one of type label."""
    targets: dict[str, float] = {}
    """Output of the brain to the weight of its loss; by default the first one, with 1."""
    loss: Literal["cross_entropy", "mse"] = "cross_entropy"

    learn: tuple[str, ...] = ()
    """Regions that learn; () is all whose network can, but `freeze`."""
    freeze: tuple[str, ...] = ()
    from_scratch: bool = False
    """Regions that learn begin with random weights and not with those they have."""
    modality_dropout: float = Field(default=0.0, ge=0, lt=0.5)
    """Share of the training samples that lack an optional input, for each of them; no sample lacks all."""

    mode: Literal["sync", "ssp", "async"] = "sync"
    staleness: int = Field(default=3, ge=0, le=1000)
    """Of ssp: updates by which the fastest worker may be ahead of the slowest."""
    workers: int = Field(default=1, ge=1, le=1000)
    shards: int = Field(default=1, ge=1, le=256)
    batch_size: int = Field(default=96, ge=1)
    """Samples of one update of `sync`; of ssp and async those of one round of all workers."""
    plan: Literal["dynamic", "equal", "fixed"] = "dynamic"
    """How a batch is shared: by speed; equally among who is there; or in `workers` equal shares, whoever computes them,
    which makes a run repeat bit for bit."""
    replan: Literal["steps", "epoch"] = "steps"
    """Of dynamic: every `replan_every` updates, or once per epoch as Ye et al. do."""
    replan_every: int = Field(default=10, ge=1)
    smoothing: float = Field(default=0.5, gt=0, le=1)
    """Weight of the newest measurement of a worker's speed."""

    pipeline: bool = False
    """Every worker drives a process per region."""
    micro_batch: int = Field(default=16, ge=1)
    recompute: bool = False
    """Compute activations again in the backward pass instead of keeping them."""

    optimizer: str = "AdamW"
    optimizer_arguments: dict[str, Any] = {"lr": 1e-3}
    schedule: str = ""
    schedule_arguments: dict[str, Any] = {}
    clip_norm: float | None = Field(default=None, gt=0)
    """Of the gradient of all learned parameters together, before the optimiser."""
    non_finite: Literal["stop", "skip"] = "stop"
    """What happens when a gradient is not finite."""

    wire: Literal["fp32", "bf16", "topk"] = "fp32"
    top_k: float = Field(default=0.01, gt=0, le=1)
    """Share of the elements that topk sends; the rest is added to what is sent next."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: forward passes under autocast."""
    threads: int = Field(default=1, ge=1, le=1024)
    """Of torch, in every worker."""

    epochs: int = Field(default=5, ge=1)
    most_steps: int | None = Field(default=None, ge=1)
    """Ends the run after so many updates."""
    patience: int | None = Field(default=None, ge=1)
    """Ends the run after so many epochs without a lower validation loss; what is kept is the best one."""
    seed: int = Field(default=0, ge=0, lt=1 << 32)

    checkpoint_steps: int = Field(default=50, ge=1)
    """Updates between two checkpoints; what is lost with a shard are at most these."""
    heartbeat_s: float = Field(default=0.5, gt=0)
    death_s: float = Field(default=3.0, gt=0)
    """A member that was silent for so long is out."""
    shard_timeout_s: float = Field(default=60.0, gt=0)
    """A lost shard that is not back by then ends the run, which can be resumed."""
    workers_timeout_s: float = Field(default=300.0, gt=0)
    """A run without a single worker for so long ends, and can be resumed."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.heartbeat_s < self.death_s < self.shard_timeout_s <= self.workers_timeout_s:
            raise ValueError(
                "time-outs must have the order heartbeat_s < death_s < shard_timeout_s <= workers_timeout_s, they are "
                f"{self.heartbeat_s}, {self.death_s}, {self.shard_timeout_s}, {self.workers_timeout_s}"
            )
        if self.batch_size < self.workers:
            raise ValueError(
                f"batch_size is {self.batch_size} for {self.workers} workers; each needs a sample at least"
            )
        if self.targets and not (min(self.targets.values()) >= 0 < max(self.targets.values())):
            raise ValueError(f"the weights of targets are {self.targets}; none may be negative, nor all 0")
        if both := set(self.learn) & set(self.freeze):
            raise ValueError(f"region '{min(both)}' is both to learn and to be frozen")
        return self

    @classmethod
    def checked(cls, **values: Any) -> Self:
        """InvalidInput, in a sentence, for settings that cannot be."""
        try:
            return cls(**values)
        except ValidationError as error:
            raise InvalidInput("; ".join(_sentence(dict(item)) for item in error.errors())) from error

    @classmethod
    def read(cls, value: bytes) -> Self:
        """From the store. Corrupt when that is not what we have written."""
        try:
            return cls.model_validate_json(value)
        except ValidationError as error:
            found = error.errors()[0]
            what = f"{'.'.join(map(str, found['loc']))}: {found['msg']}" if found["loc"] else found["msg"]
            raise Corrupt(f"the settings of the run cannot be read: {what}") from error


def prefix_of(namespace: str, run: str = "") -> str:
    """What the keys of a run, or of all runs, start with."""
    base = f"/encephalon/{quote(namespace, safe='')}/training/"
    return f"{base}{quote(run, safe='')}/" if run else base


def keys_of(namespace: str, run: str) -> tuple[str, str, str]:
    """Of settings, state and the wish to stop."""
    prefix = prefix_of(namespace, run)
    return f"{prefix}settings", f"{prefix}state", f"{prefix}stop"


def _sentence(error: dict[str, Any]) -> str:
    path = ".".join(str(part) for part in error["loc"])
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "string_pattern_mismatch":  # only the name has one
        message = "a name begins with a letter or digit and has at most 100 letters, digits, '.', '_' and '-'"
    return f"{path} is {error['input']!r}: {message}" if path else message
