"""One worker of hivemind: its GradientAverager averages gradients, and looks for its group ahead of time, while passes
are computed, as hivemind.Optimizer does.

    python -m tests.bench.training.rivals.hivemind_peer --rank 0 --workers 2 --steps 8 --rendezvous FILE

Runs in an environment with hivemind. Its matchmaking times are set as small as makes sense; the
defaults (5 s) are for swarms.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import hivemind  # type: ignore[import-not-found, unused-ignore]
import torch
from hivemind.averaging.control import AveragingStage  # type: ignore[import-not-found, unused-ignore]
from hivemind.optim.grad_averager import GradientAverager  # type: ignore[import-not-found, unused-ignore]
from hivemind.utils import get_dht_time  # type: ignore[import-not-found, unused-ignore]

from tests.bench.training.workload import OPTIMIZER, Steps, compute, measure, model

MATCHMAKING_S, REQUEST_S, STEP_S = 0.5, 0.3, 60.0


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("rank", "workers", "steps"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--rendezvous", type=Path, required=True)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    dht = joined(chosen.rank, chosen.rendezvous)
    network = model()
    averager = GradientAverager(
        network.parameters(),
        dht=dht,
        prefix="bench",
        reuse_grad_buffers=True,
        target_group_size=chosen.workers,
        min_group_size=chosen.workers,
        min_matchmaking_time=MATCHMAKING_S,
        request_timeout=REQUEST_S,
        start=True,
    )
    optimiser = torch.optim.SGD(network.parameters(), **OPTIMIZER)
    passes = compute(network, chosen.rank)
    parts: dict[str, list[float]] = {"group": [], "all-reduce alone": []}

    def step() -> None:
        control = averager.schedule_step(get_dht_time() + MATCHMAKING_S, timeout=STEP_S)
        passes()
        averager.accumulate_grads_(batch_size=1)
        parts["group"].append(grouped(control))
        began = time.perf_counter()
        if averager.step(control=control, reset_accumulators=True, timeout=STEP_S) is None:
            raise RuntimeError("hivemind averaged nothing")
        parts["all-reduce alone"].append(time.perf_counter() - began)
        with averager.use_averaged_gradients():
            optimiser.step()

    taken = Steps(measure(step, chosen.steps), parts=parts)
    print(taken.told(), flush=True)
    # The other peer may still need this one for its last group.
    time.sleep(1)
    averager.shutdown()
    dht.shutdown()


def joined(rank: int, rendezvous: Path) -> Any:
    """Rank 0 begins a swarm and tells its addresses in a file; the others join it."""
    if rank == 0:
        dht = hivemind.DHT(host_maddrs=["/ip4/127.0.0.1/tcp/0"], start=True, use_auto_relay=False)
        written = rendezvous.with_suffix(".part")
        written.write_text("\n".join(str(each) for each in dht.get_visible_maddrs()))
        written.rename(rendezvous)
        return dht
    while not rendezvous.exists():
        time.sleep(0.05)
    peers = rendezvous.read_text().splitlines()
    return hivemind.DHT(host_maddrs=["/ip4/127.0.0.1/tcp/0"], initial_peers=peers, start=True, use_auto_relay=False)


def grouped(control: Any) -> float:
    """Seconds until a group has been found for the step."""
    began = time.perf_counter()
    stage = AveragingStage
    while control.stage in (stage.IDLE, stage.LOOKING_FOR_GROUP):
        time.sleep(0.001)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
