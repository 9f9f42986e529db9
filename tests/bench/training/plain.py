"""Training as a user of PyTorch writes it: one process, AdamW, the same model. Prints its memory in MiB. Without a step
it is what a shard is that holds nothing: its modules, and those that torch loads for its first optimiser.

    python -m tests.bench.training.plain --steps 12
"""

from __future__ import annotations

import argparse
import importlib
import json

import torch

from tests.bench.training.memory import own
from tests.bench.training.workload import compute, model


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, required=True)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.steps == 0:
        importlib.import_module("encephalon.parameter_server.lifetime")
        torch.optim.AdamW([torch.zeros(1)])
        print(json.dumps(own()))
        return
    network = model()
    optimiser = torch.optim.AdamW(network.parameters())
    passes = compute(network, 0)
    for _ in range(chosen.steps):
        optimiser.zero_grad()
        passes()
        optimiser.step()
    print(json.dumps(own()))


if __name__ == "__main__":
    main()
