"""From a config to a version that is loaded, fits, and is warm. Runs beside the version in service, in a thread of its
own.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from pathlib import Path

from encephalon.areas import Network, load_network
from encephalon.core.contract import Contract
from encephalon.core.cost import CostModel
from encephalon.core.errors import EncephalonError, FailedPrecondition
from encephalon.core.inference.models import ModelStatistics
from encephalon.region.batching import split, stack, zeros
from encephalon.region.figures import Figures
from encephalon.region.fitting import check_contract
from encephalon.region.source import Config, Source
from encephalon.region.version import Version

__all__ = ["load_version"]

ANY_SIZE = 32
"""What warming up puts for a dimension of any size: small enough to be quick, and no network is too small for it."""


async def load_version(
    region: str, name: str, config: Config, source: Source, base: Contract, max_batch: int, threads: int | None = None
) -> Version:
    """Raises as `Source.weights` and `load_network` do, and `FailedPrecondition` when the network does not fit."""
    weights = await source.weights(config)
    return await asyncio.to_thread(build, region, name, config, weights, base, max_batch, threads)


def build(
    region: str,
    name: str,
    config: Config,
    weights: Path | bytes | None,
    base: Contract,
    max_batch: int,
    threads: int | None,
) -> Version:
    network = load_network(config.area, config.code, weights, config.arguments)
    check_contract(network.contract, base)
    limit_threads(threads)
    cost = CostModel()
    cost.seed(warm_up(network, max_batch))
    cancelled = getattr(network, "cancelled", None)
    return Version(
        name=name,
        config=config,
        network=network,
        contract=network.contract,
        statistics=ModelStatistics(region, name),
        figures=Figures.of(region, config.network, name),
        cost=cost,
        inline=bool(getattr(network, "inline", False)),
        cancelled=cancelled if isinstance(cancelled, threading.Event) else None,
    )


def limit_threads(threads: int | None) -> None:
    """Of torch, if this network brought it in: regions on one machine would else each start a thread per core."""
    torch = sys.modules.get("torch")
    if torch is not None and threads is not None and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def warm_up(network: Network, max_batch: int) -> dict[int, float]:
    """Runs the smallest and the largest batch, and gives the seconds that each took the second time."""
    return {rows: run(network, rows) for rows in sorted({1, max_batch})}


def run(network: Network, rows: int) -> float:
    contract = network.contract
    message = zeros(contract, rows, ANY_SIZE)
    seconds = 0.0
    try:
        for _ in range(2):
            began = time.perf_counter()
            split(contract, network(stack(contract, [message], [rows])), [rows], [None])
            seconds = time.perf_counter() - began
    except EncephalonError as error:
        raise FailedPrecondition(f"warming up with {rows} rows failed: {error.message}") from error
    except Exception as error:
        raise FailedPrecondition(f"warming up with {rows} rows failed: {type(error).__name__}: {error}") from error
    return seconds
