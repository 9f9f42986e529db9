"""What every system trains: a multi-layer perceptron of 25 million parameters on noise, forward and backward passes of
a few samples, so that a step is mostly synchronising. Knows torch only: rivals run it in environments of their own."""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn

__all__ = ["CLASSES", "INPUTS", "OPTIMIZER", "SAMPLES", "WARM_UP", "WIDTH", "Steps", "compute", "measure", "model"]

INPUTS, WIDTH, LAYERS, CLASSES = 2_000, 2_048, 6, 10
SAMPLES = 8
"""Of each worker per step."""
WARM_UP = 3
"""Steps that are not counted: buckets, buffers and connections are made in them."""
OPTIMIZER = {"lr": 1e-3, "momentum": 0.9}
"""Of torch.optim.SGD."""


@dataclass(slots=True)
class Steps:
    """Seconds of each step, of its forward and backward passes alone, and of other parts by name."""

    seconds: list[float] = field(default_factory=list)
    compute: list[float] = field(default_factory=list)
    parts: dict[str, list[float]] = field(default_factory=dict)

    def told(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, output: str) -> Steps:
        """From the last line of what a worker has printed."""
        return cls(**json.loads(output.strip().splitlines()[-1]))

    @classmethod
    def together(cls, workers: Sequence[Steps]) -> Steps:
        """Step by step the slowest worker."""
        seconds = [max(step) for step in zip(*(one.seconds for one in workers), strict=True)]
        alone = [max(step) for step in zip(*(one.compute for one in workers), strict=True)]
        names = {name for one in workers for name in one.parts}
        parts = {name: [value for one in workers for value in one.parts.get(name, [])] for name in names}
        return cls(seconds, alone, parts)

    @property
    def milliseconds(self) -> float:
        """The median."""
        return 1_000 * statistics.median(self.seconds)


def model() -> nn.Sequential:
    """25.1 million parameters, the same ones for everybody."""
    torch.manual_seed(0)
    widths = [INPUTS, *[WIDTH] * LAYERS, CLASSES]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def compute(network: nn.Module, rank: int, samples: int = SAMPLES) -> Callable[[], Tensor]:
    """A forward and backward pass of this worker's samples."""
    made = torch.Generator().manual_seed(rank)
    x = torch.randn(samples, INPUTS, generator=made)
    labels = torch.randint(CLASSES, (samples,), generator=made)

    def passes() -> Tensor:
        loss = nn.functional.cross_entropy(network(x), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    return passes


def measure(step: Callable[[], object], steps: int) -> list[float]:
    """Seconds of each of so many calls, after the warm-up."""
    for _ in range(WARM_UP):
        step()
    taken = []
    for _ in range(steps):
        began = time.perf_counter()
        step()
        taken.append(time.perf_counter() - began)
    return taken
