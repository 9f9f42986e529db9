"""A brain as its coordinator sees it now: regions, replicas, latencies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from encephalon.api.coordinator.v1 import coordinator_pb2
from encephalon.api.discovery.v1 import instance_pb2

__all__ = ["BrainDescription", "PendingVersion", "RegionDescription", "ReplicaDescription"]

Breaker = Literal["closed", "open", "half-open", "unknown"]
ReplicaState = Literal["starting", "ready", "draining", "unknown"]

BREAKERS: dict[int, Breaker] = {
    coordinator_pb2.Region.BREAKER_CLOSED: "closed",
    coordinator_pb2.Region.BREAKER_OPEN: "open",
    coordinator_pb2.Region.BREAKER_HALF_OPEN: "half-open",
}
STATES: dict[int, ReplicaState] = {
    instance_pb2.Instance.STATE_STARTING: "starting",
    instance_pb2.Instance.STATE_READY: "ready",
    instance_pb2.Instance.STATE_DRAINING: "draining",
}


@dataclass(frozen=True, slots=True)
class ReplicaDescription:
    """One instance of a region. `ejected`: set aside after failures. `outstanding`: requests on their way to it."""

    id: str
    address: str
    local_address: str
    state: ReplicaState
    version: str
    ejected: bool
    outstanding: int
    latency_ms: float


@dataclass(frozen=True, slots=True)
class RegionDescription:
    """`p50_ms` and `p99_ms` are of recent requests, 0 before the first. `identity` names what the region runs, in a
    brain that follows the library.
    """

    name: str
    network: str
    breaker: Breaker
    p50_ms: float
    p99_ms: float
    requests: int
    failures: int
    replicas: tuple[ReplicaDescription, ...]
    identity: str = ""

    @property
    def ready(self) -> bool:
        """True when a replica takes requests."""
        return any(replica.state == "ready" and not replica.ejected for replica in self.replicas)


@dataclass(frozen=True, slots=True)
class PendingVersion:
    """The version that will be in service next, and what it waits for. `failed`: a region cannot load its part."""

    version: str
    waits_for: str
    failed: bool


@dataclass(frozen=True, slots=True)
class BrainDescription:
    """`version` counts up with every replacement of the manifest; `manifest` is the one in service, as JSON.

    Of a brain that follows the library (`follows` says what), `version` is its version there.
    """

    name: str
    version: str
    manifest: str
    regions: tuple[RegionDescription, ...]
    follows: str = ""
    pending: PendingVersion | None = None

    @classmethod
    def of(cls, message: coordinator_pb2.DescribeBrainResponse) -> BrainDescription:
        return cls(
            message.brain,
            message.version,
            message.manifest,
            tuple(region(item) for item in message.regions),
            message.follows,
            pending(message.pending) if message.HasField("pending") else None,
        )


def pending(message: coordinator_pb2.Pending) -> PendingVersion:
    return PendingVersion(message.version, message.waits_for, message.failed)


def region(message: coordinator_pb2.Region) -> RegionDescription:
    return RegionDescription(
        name=message.name,
        network=message.network,
        breaker=BREAKERS.get(message.breaker, "unknown"),
        p50_ms=message.latency_ms_p50,
        p99_ms=message.latency_ms_p99,
        requests=message.requests,
        failures=message.failures,
        replicas=tuple(replica(item) for item in message.replicas),
        identity=message.identity,
    )


def replica(message: coordinator_pb2.Replica) -> ReplicaDescription:
    return ReplicaDescription(
        id=message.instance.id,
        address=message.instance.address,
        local_address=message.instance.local_address,
        state=STATES.get(message.instance.state, "unknown"),
        version=message.instance.version,
        ejected=message.ejected,
        outstanding=message.outstanding,
        latency_ms=message.latency_ms,
    )
