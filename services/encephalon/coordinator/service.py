"""What a coordinator answers beyond the Open Inference Protocol."""

from __future__ import annotations

from typing import Any

import grpc

from encephalon.api.coordinator.v1 import coordinator_pb2 as pb
from encephalon.coordinator.brains import Brains, Following, Pending
from encephalon.coordinator.breaker import BreakerState
from encephalon.coordinator.link import Link
from encephalon.coordinator.replicas import Replica
from encephalon.coordinator.served import Served
from encephalon.core.parsing import parse
from encephalon.core.status import abort

__all__ = ["CoordinatorService"]

SERVICE = "encephalon.api.coordinator.v1.CoordinatorService"
BREAKERS = {
    BreakerState.CLOSED: pb.Region.BREAKER_CLOSED,
    BreakerState.OPEN: pb.Region.BREAKER_OPEN,
    BreakerState.HALF_OPEN: pb.Region.BREAKER_HALF_OPEN,
}


class CoordinatorService:
    def __init__(self, brains: Brains) -> None:
        self._brains = brains

    def handler(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            SERVICE, {"DescribeBrain": grpc.unary_unary_rpc_method_handler(self.DescribeBrain)}
        )

    async def DescribeBrain(self, message: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        try:
            served = self._brains.served(parse(pb.DescribeBrainRequest, message).brain)
            return described(served, self._brains.followed.get(served.brain.name)).SerializeToString()
        except Exception as error:  # noqa: BLE001 - becomes the status
            await abort(context, error)


def described(served: Served, following: Following | None = None) -> pb.DescribeBrainResponse:
    networks = {region.name: region.network for region in served.brain.regions}
    return pb.DescribeBrainResponse(
        brain=served.brain.name,
        version=served.version,
        manifest=served.brain.to_json(),
        regions=[region(link, networks[name]) for name, link in served.links.items()],
        follows=following.reference if following is not None else "",
        pending=next_version(following.pending) if following is not None else None,
    )


def next_version(pending: Pending | None) -> pb.Pending | None:
    if pending is None:
        return None
    return pb.Pending(version=pending.version, waits_for=pending.waits_for, failed=pending.failed)


def region(link: Link, network: str) -> pb.Region:
    metrics = link.metrics
    return pb.Region(
        name=link.region,
        network=network,
        breaker=BREAKERS[link.breaker.state],
        replicas=[replica(member) for member in link.replicas.values()],
        latency_ms_p50=metrics.quantile_ms(0.5),
        latency_ms_p99=metrics.quantile_ms(0.99),
        requests=metrics.requests,
        failures=metrics.failures,
        identity=link.version,
    )


def replica(member: Replica) -> pb.Replica:
    return pb.Replica(
        instance=member.instance,
        # A connection that is gone may not have been noticed by a request or a check yet.
        ejected=member.ejected or member.broken,
        outstanding=member.outstanding,
        latency_ms=member.latency_s * 1000,
    )
