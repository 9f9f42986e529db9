"""What a brain answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from encephalon.core.wire import InferResponse

__all__ = ["Answer"]

MISSING, TIMING, QUEUE, VERSION = "missing_regions", "region_ms.", "queue_ms.", "version."


@dataclass(frozen=True, slots=True, eq=False)
class Answer(Mapping[str, np.ndarray[Any, Any]]):
    """The outputs by name, and how they came about.

    `missing`: regions that were absent from this answer (a sense that was not sent, failed or came too late).
    `timings`: milliseconds that each region took, as the coordinator saw it, waiting included; `queues`: the part of it
    spent waiting in the region's mailbox. `version`: of the brain, all regions alike; `versions`: that
    of the network that answered, per region.
    """

    outputs: Mapping[str, np.ndarray[Any, Any]]
    missing: tuple[str, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    queues: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    version: str = ""

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        return self.outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)

    @classmethod
    def of(cls, response: InferResponse, *, single: bool) -> Answer:
        """Reads a response; `single` takes the batch dimension off outputs that have one row."""
        parameters = response.parameters
        outputs = {tensor.name: tensor.array for tensor in response.outputs}
        if single:
            outputs = {name: array[0] if array.shape[:1] == (1,) else array for name, array in outputs.items()}
        return cls(
            outputs=outputs,
            missing=tuple(name for name in str(parameters.get(MISSING, "")).split(",") if name),
            timings={name: float(value) for name, value in suffixes(parameters, TIMING)},
            queues={name: float(value) for name, value in suffixes(parameters, QUEUE)},
            versions={name: str(value) for name, value in suffixes(parameters, VERSION)},
            version=response.model_version,
        )


def suffixes(
    parameters: Mapping[str, bool | int | float | str], prefix: str
) -> Iterator[tuple[str, bool | int | float | str]]:
    return ((key.removeprefix(prefix), value) for key, value in parameters.items() if key.startswith(prefix))
