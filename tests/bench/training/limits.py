"""What the machine can do at best of what a step consists of: bytes over loopback, copies, and the optimiser."""

from __future__ import annotations

import socket
import statistics
import threading
import time
from collections.abc import Callable, Mapping

import torch

from tests.bench.training.workload import OPTIMIZER, compute, model

__all__ = ["limits"]

TIMES = 5
CHUNK = 1 << 20


def limits() -> Mapping[str, float]:
    """Milliseconds, medians, in one thread, for the parameters of the workload's model."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        network = model()
        passes = compute(network, 0)
        optimiser = torch.optim.SGD(network.parameters(), foreach=False, **OPTIMIZER)
        passes()
        flat = torch.zeros(sum(each.numel() for each in network.parameters()))
        other = torch.ones_like(flat)
        half = torch.empty_like(flat, dtype=torch.bfloat16)
        return {
            "passes of one worker": taken(passes),
            "optimiser over all parameters": taken(optimiser.step),
            "one copy of all parameters": taken(lambda: other.copy_(flat)),
            "one sum of two gradients": taken(lambda: other.add_(flat)),
            "all parameters to bfloat16 and back": taken(lambda: other.copy_(half.copy_(flat))),
            "all parameters over a loopback socket": taken(lambda: sent(flat.nbytes)),
        }
    finally:
        torch.set_num_threads(threads)


def taken(call: Callable[[], object]) -> float:
    call()
    times = []
    for _ in range(TIMES):
        began = time.perf_counter()
        call()
        times.append(1_000 * (time.perf_counter() - began))
    return statistics.median(times)


def sent(size: int) -> None:
    """Until the other end has read so many bytes, into the same memory again and again."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        reader = threading.Thread(target=_read, args=(server, size))
        reader.start()
        with socket.create_connection(server.getsockname()) as connection:
            block = memoryview(bytearray(CHUNK))
            for start in range(0, size, CHUNK):
                connection.sendall(block[: min(CHUNK, size - start)])
        reader.join()


def _read(server: socket.socket, size: int) -> None:
    connection, _ = server.accept()
    with connection:
        into = bytearray(CHUNK)
        while size > 0:
            size -= connection.recv_into(into)
