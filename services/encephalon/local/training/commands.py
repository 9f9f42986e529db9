"""Which processes a run needs on this machine, and with which arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from encephalon.local.plan import MEMORY
from encephalon.local.process import Command
from encephalon.local.training.options import TrainingOptions
from encephalon.training.runs import RunSettings

__all__ = ["CONTROLLER", "commands"]

CONTROLLER: Final = "control-node"
GRACE_S: Final = "0.5"
"""For which a finished run is told: everybody here is told at once, or is stopped."""

# gRPC's handlers of fork() crash a child of a busy event loop before it is another program (uvloop forks; 6 of 400
# with grpcio 1.85), and a control node starts one.
NO_FORK_HANDLERS: Final = {"GRPC_ENABLE_FORK_SUPPORT": "0"}


def commands(settings: RunSettings, options: TrainingOptions, regions: Sequence[str]) -> dict[str, list[Command]]:
    """By role: `controller`, `shard`, `worker` and, of a pipeline, `region` for each of `regions` of every worker."""

    folder = options.folder(settings.run)

    def command(name: str, module: str, *arguments: str, threads: int = 1, region: str = "") -> Command:
        own = folder if name == CONTROLLER else folder / name  # what a control node writes, its user looks for
        return Command(
            name=name,
            module=f"encephalon.{module}",
            arguments=(
                *("--run", settings.run, *arguments),
                *("--listen", "127.0.0.1:0", "--folder", str(own), "--metrics-port", "0"),
            ),
            log=folder / "logs" / f"{name}.log",
            region=region,
            environment=environment(options, threads),
        )

    workers = [f"worker-{number}" for number in range(options.processes or settings.workers)]
    pairs = [(worker, region) for worker in workers for region in regions if settings.pipeline]
    return {
        "controller": [command(CONTROLLER, "training", "--grace-s", GRACE_S)],
        "shard": [
            command(f"shard-{number}", "parameter_server", "--shard", str(number)) for number in range(settings.shards)
        ],
        "region": [
            command(
                f"{worker}.{region}",
                "region.learning",
                *("--worker", worker, "--region", region),
                threads=settings.threads,
                region=region,
            )
            for worker, region in pairs
        ],
        "worker": [
            command(worker, "training.worker", "--worker", worker, threads=settings.threads) for worker in workers
        ],
    }


def environment(options: TrainingOptions, threads: int) -> Mapping[str, str]:
    """The stores go through the environment, because their addresses may hold secrets and arguments are public."""
    cache = {"ENCEPHALON_LIBRARY_CACHE": str(options.cache_dir.resolve())} if options.cache_dir else {}
    return {
        **MEMORY,
        **NO_FORK_HANDLERS,
        **cache,
        "ENCEPHALON_STATE": options.state_url,
        "ENCEPHALON_OBJECTS": options.objects_url,
        "ENCEPHALON_NAMESPACE": options.namespace,
        "OMP_NUM_THREADS": str(threads),
    }
