"""Training as a user of PyTorch writes it: one process, AdamW, the same model. Prints its memory in MiB, and that which
it had when nothing but the modules was there.

    python -m tests.bench.training.plain --steps 12
"""

from __future__ import annotations

import argparse
import json

import grpc.aio  # noqa: F401 - a shard has it too
import torch

from tests.bench.training.memory import own
from tests.bench.training.workload import compute, model


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, required=True)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    empty = own()["pss"]
    network = model()
    optimiser = torch.optim.AdamW(network.parameters())
    passes = compute(network, 0)
    for _ in range(chosen.steps):
        optimiser.zero_grad()
        passes()
        optimiser.step()
    print(json.dumps({**own(), "empty": empty}))


if __name__ == "__main__":
    main()
