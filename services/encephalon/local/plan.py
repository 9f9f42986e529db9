"""Which processes a brain needs on this machine, and with which arguments."""

from __future__ import annotations

import contextlib
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from encephalon.library.brains import Brain, Region
from encephalon.local.process import Command

__all__ = ["Site", "commands", "hosts", "replicas", "threads_per_region"]

# glibc returns large blocks to the kernel on every free and faults them in again on the next message; with these it
# keeps them (a 16 MiB message: 82 -> 18 ms on a 2-core VM).
MEMORY = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "4294967296"}

# A caller on this machine may pass tensors in shared memory of a name of its own. Regions listen on loopback only; a
# coordinator that listens beyond it keeps its own default, which is to map nothing.
ANY_SHARED_MEMORY = {"ENCEPHALON_SHARED_MEMORY": '["/"]'}


@dataclass(frozen=True, slots=True)
class Site:
    """Where a brain is put: the manifest that its processes read, their stores and folders, the coordinator's ports.

    `follow` is what they follow instead in the library of the namespace `library`; `options` are more arguments of a
    process that hosts regions. `sockets` are the names given so far.
    """

    manifest: Path
    address: str
    metrics_port: int
    state: str
    objects: str
    namespace: str
    runtime: Path
    logs: Path
    follow: str = ""
    library: str = ""
    options: tuple[str, ...] = ()
    sockets: dict[str, str] = field(default_factory=dict)

    @property
    def source(self) -> tuple[str, ...]:
        """The arguments that say which brain it is."""
        return ("--follow", self.follow, "--library", self.library) if self.follow else ("--brain", str(self.manifest))

    def socket(self, process: str) -> str:
        return str(self.runtime / self.sockets.setdefault(process, f"{len(self.sockets) + 1}.sock"))


def commands(brain: Brain, site: Site) -> list[Command]:
    """The coordinator first, then a process per replica of every region that is not colocated with it or elsewhere."""
    threads = threads_per_region(sum(not region.address for region in brain.regions))
    return [coordinator(brain, site, threads), *replicas(brain, site, threads)]


def replicas(brain: Brain, site: Site, threads: int, *, hosting: bool = True) -> list[Command]:
    """A process per replica of every region that lives in one; `hosting`: the coordinator takes the colocated ones."""
    return [
        replica(region, index, site, threads)
        for region in brain.regions
        if not region.address and not (hosting and region.placement == "colocated")
        for index in range(region.replicas)
    ]


def hosts(brain: Brain) -> bool:
    """Whether the coordinator's process has regions in it."""
    return any(region.placement == "colocated" for region in brain.regions)


def coordinator(brain: Brain, site: Site, threads: int) -> Command:
    """Also hosts the regions that are colocated with it, if there are any."""
    arguments = ("--listen", site.address, *site.source, "--metrics-port", str(site.metrics_port))
    return Command(
        name="coordinator",
        module="encephalon.local.colocated" if hosts(brain) else "encephalon.coordinator",
        arguments=(*arguments, "--threads", str(threads), *site.options) if hosts(brain) else arguments,
        log=site.logs / "coordinator.log",
        environment={**environment(site, threads), **(ANY_SHARED_MEMORY if on_loopback(site.address) else {})},
    )


def replica(region: Region, index: int, site: Site, threads: int) -> Command:
    name = f"{region.name}-{index}"
    socket = site.socket(name)
    return Command(
        name=name,
        module="encephalon.region",
        arguments=(
            *(*site.source, "--region", region.name, "--listen", "127.0.0.1:0"),
            *("--unix", socket, "--metrics-port", "0", "--threads", str(threads)),
        ),
        log=site.logs / f"{name}.log",
        region=region.name,
        socket=socket,
        environment={**environment(site, threads), **ANY_SHARED_MEMORY},
    )


def environment(site: Site, threads: int) -> Mapping[str, str]:
    """The stores go through the environment, because their addresses may hold secrets and arguments are public."""
    return {
        **MEMORY,
        "ENCEPHALON_STATE": site.state,
        "ENCEPHALON_OBJECTS": site.objects,
        "ENCEPHALON_NAMESPACE": site.namespace,
        "OMP_NUM_THREADS": str(threads),
    }


def on_loopback(address: str) -> bool:
    """True when only programs of this machine reach `address` (host:port)."""
    host = address.rpartition(":")[0].strip("[]")
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def threads_per_region(regions: int) -> int:
    """The cores of this process shared out among the regions, because all of them compute at the same time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // max(1, regions))
