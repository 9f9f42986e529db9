"""One client of Flower, and with rank 0 its server too, in a process of its own: a round of FedAvg is one step.

    python -m tests.bench.training.rivals.flower --rank 0 --workers 2 --steps 8 --rendezvous FILE

Runs in an environment with flwr. It is called as its older interface was, by which clients and server talk directly: a
SuperLink would lie between them and be slower. Nothing is evaluated.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from flwr.client import NumPyClient, start_client  # type: ignore[import-not-found, unused-ignore]
from flwr.common import ndarrays_to_parameters  # type: ignore[import-not-found, unused-ignore]
from flwr.server import ServerConfig, start_server  # type: ignore[import-not-found, unused-ignore]
from flwr.server.strategy import FedAvg  # type: ignore[import-not-found, unused-ignore]
from torch import nn

from tests.bench.training.workload import OPTIMIZER, SAMPLES, WARM_UP, Steps, compute, model


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("rank", "workers", "steps"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--rendezvous", type=Path, required=True)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rounds = chosen.steps + WARM_UP + 1
    if chosen.rank == 0:
        port = free_port()
        context = multiprocessing.get_context("spawn")
        context.Process(target=serve, args=(port, chosen.workers, rounds), daemon=True).start()
        await_open(port)
        written = chosen.rendezvous.with_suffix(".part")
        written.write_text(str(port))
        written.rename(chosen.rendezvous)
    while not chosen.rendezvous.exists():
        time.sleep(0.05)
    client = Client(chosen.rank)
    address = f"127.0.0.1:{chosen.rendezvous.read_text()}"
    start_client(server_address=address, client=client.to_client(), max_retries=20)
    seconds = [after - before for before, after in itertools.pairwise(client.ends)]
    taken = Steps(seconds[-chosen.steps :], client.compute[-chosen.steps :])
    print(taken.told(), flush=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_open(port: int, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def serve(port: int, workers: int, rounds: int) -> None:
    initial = ndarrays_to_parameters(values(model()))
    strategy = FedAvg(
        fraction_evaluate=0.0, min_fit_clients=workers, min_available_clients=workers, initial_parameters=initial
    )
    start_server(server_address=f"127.0.0.1:{port}", config=ServerConfig(num_rounds=rounds), strategy=strategy)


def values(network: nn.Module) -> list[Any]:
    return [parameter.detach().numpy() for parameter in network.parameters()]


class Client(NumPyClient):  # type: ignore[misc, unused-ignore]
    """Takes the averaged parameters, does a step, and gives its own."""

    def __init__(self, rank: int) -> None:
        self.network = model()
        self.passes = compute(self.network, rank)
        self.optimiser = torch.optim.SGD(self.network.parameters(), **OPTIMIZER)
        self.ends: list[float] = []
        self.compute: list[float] = []

    def fit(self, parameters: Sequence[Any], config: object) -> tuple[list[Any], int, dict[str, Any]]:
        with torch.no_grad():
            for mine, given in zip(self.network.parameters(), parameters, strict=True):
                mine.copy_(torch.from_numpy(given))
        self.optimiser.zero_grad()
        began = time.perf_counter()
        self.passes()
        self.compute.append(time.perf_counter() - began)
        self.optimiser.step()
        self.ends.append(time.perf_counter())
        return values(self.network), SAMPLES, {}


if __name__ == "__main__":
    main()
