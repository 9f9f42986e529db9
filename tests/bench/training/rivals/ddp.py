"""One worker of PyTorch's DistributedDataParallel over gloo.

    python -m tests.bench.training.rivals.ddp --rank 0 --workers 2 --steps 20 --rendezvous FILE

Every worker keeps all parameters and runs the optimiser over all of them.
"""

from __future__ import annotations

import argparse

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from tests.bench.training.workload import OPTIMIZER, Steps, compute, measure, model


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("rank", "workers", "steps"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--rendezvous", required=True)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{chosen.rendezvous}", rank=chosen.rank, world_size=chosen.workers
    )
    network = model()
    # The view saves gloo a copy of all gradients.
    replica = DistributedDataParallel(network, gradient_as_bucket_view=True)
    optimiser = torch.optim.SGD(network.parameters(), **OPTIMIZER)
    passes, alone = compute(replica, chosen.rank), compute(network, chosen.rank)

    def step() -> None:
        optimiser.zero_grad()
        passes()
        optimiser.step()

    def unsynchronised() -> None:
        with replica.no_sync():
            alone()

    flat = torch.zeros(sum(each.numel() for each in network.parameters()))
    taken = Steps(measure(step, chosen.steps), measure(unsynchronised, chosen.steps))
    taken.parts = {
        "optimiser": measure(optimiser.step, chosen.steps),
        "all-reduce alone": measure(lambda: distributed.all_reduce(flat), chosen.steps),
    }
    print(taken.told())
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
