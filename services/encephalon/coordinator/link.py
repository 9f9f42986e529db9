"""The coordinator's side of one region: its replicas, its breaker, its sequences, and who waits for a replica."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from encephalon.coordinator.balancing import choose
from encephalon.coordinator.breaker import Breaker, BreakerState
from encephalon.coordinator.metrics import RegionMetrics
from encephalon.coordinator.replicas import Replica
from encephalon.coordinator.retry_budget import RetryBudget
from encephalon.coordinator.sequences import Key, Sequences
from encephalon.core.errors import FailedPrecondition, Unavailable
from encephalon.core.tasks import spawn

if TYPE_CHECKING:
    from encephalon.coordinator.call import Call

__all__ = ["Link", "LinkOptions"]

LOG = logging.getLogger(__name__)

# So many failures in a row set a replica aside; one may be a request's own bad luck.
FAILURES = 3
PROBE_FIRST_S = 0.05
PROBE_LAST_S = 2.0


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """`grace_s`: how long a request waits when no replica is there."""

    grace_s: float = 0.5


class Link:
    """Lives as long as a brain has the region unchanged; all methods are called on the event loop."""

    def __init__(self, brain: str, region: str, options: LinkOptions, version: str = "") -> None:
        """`version`: what requests ask the replicas for; empty means whatever a replica has in service."""
        self.region = region
        self.version = version
        self.options = options
        self.metrics = RegionMetrics(brain, region)
        self.breaker = Breaker()
        self.budget = RetryBudget()
        self.sequences = Sequences()
        self.replicas: dict[str, Replica] = {}
        self.loop = asyncio.get_running_loop()
        self._usable: list[Replica] = []
        self._parked: dict[Call, asyncio.TimerHandle] = {}
        self._probes: dict[str, asyncio.Task[None]] = {}

    def show(self) -> None:
        """It is in service: its gauges are those of the region."""
        self.metrics.show(lambda: float(len(self._usable)), lambda: float(self.breaker.state is BreakerState.OPEN))

    @property
    def ready(self) -> bool:
        return bool(self._usable)

    @property
    def width(self) -> int:
        """How many replicas take requests."""
        return len(self._usable)

    def why_not_ready(self) -> str:
        if self._usable:
            return ""
        if not self.replicas:
            return f"region '{self.region}' has no replica"
        return f"region '{self.region}' has no replica that answers ({len(self.replicas)} known)"

    # Choosing

    def pick(self, avoid: Collection[Replica] = ()) -> Replica | None:
        usable = self._usable
        return usable[0] if len(usable) == 1 else choose(usable, avoid)

    def pick_sticky(self, sequence: Key, *, starts: bool, ends: bool) -> Replica | None:
        """The replica that keeps the sequence; FailedPrecondition when it is gone, for its state went with it."""
        kept = None if starts else self.sequences.replica(sequence)
        replica = self.pick() if kept is None else self.replicas.get(kept)
        if kept is not None and (replica is None or replica.ejected):
            self.sequences.forget(sequence)
            raise self.lost(sequence, kept)
        if replica is None:
            return None
        if ends:
            self.sequences.forget(sequence)
        else:
            self.sequences.keep(sequence, replica.id)
        return replica

    def lost(self, sequence: Key, replica: str) -> FailedPrecondition:
        return FailedPrecondition(
            f"region '{self.region}': sequence {sequence} is lost with its replica {replica}; start the sequence again",
            region=self.region,
            sequence=sequence,
        )

    def refused(self) -> Unavailable:
        return Unavailable(
            f"region '{self.region}' failed too often and rests for a moment; {self.why_not_ready() or 'try again'}",
            region=self.region,
        )

    # Waiting for a replica

    def park(self, call: Call, deadline: float) -> None:
        """Starts the call when a replica comes, and fails it when none does."""
        at = min(self.loop.time() + self.options.grace_s, deadline)
        self._parked[call] = self.loop.call_at(at, self._give_up, call)

    def unpark(self, call: Call) -> None:
        if timer := self._parked.pop(call, None):
            timer.cancel()

    def _give_up(self, call: Call) -> None:
        if self._parked.pop(call, None):
            reason = self.why_not_ready() or f"region '{self.region}' has no replica"
            call.fail(Unavailable(f"{reason}; try again later", region=self.region))

    def _wake(self) -> None:
        self.breaker.reset()
        parked, self._parked = self._parked, {}
        for call, timer in parked.items():
            timer.cancel()
            call.go()

    # Members

    def add(self, replica: Replica) -> None:
        """Takes a replica into service, or back into it; one that is not connected yet when it answers a probe."""
        self.replicas[replica.id] = replica
        self._choose_from()
        if not replica.ejected:
            self._wake()
        elif replica.id not in self._probes:
            self._probes[replica.id] = spawn(f"connect replica {replica.id}", self._probe(replica, failed=False))

    def drain(self, id: str) -> None:
        """Sends nothing new to the replica; what it has, it finishes. Then it is closed."""
        replica = self.replicas.pop(id, None)
        if replica is None:
            return
        if probe := self._probes.pop(id, None):
            probe.cancel()
        replica.leaving = True
        self._choose_from()
        self.released(replica)

    def released(self, replica: Replica) -> None:
        """A request has left the replica."""
        if replica.leaving and not replica.outstanding:
            spawn(f"close replica {replica.id}", replica.close())

    def failed(self, replica: Replica) -> None:
        """It did not answer a request that another might have."""
        replica.failures += 1
        if replica.failures >= FAILURES or replica.broken:
            self.eject(replica)

    def eject(self, replica: Replica) -> None:
        """Sets it aside until it answers a probe."""
        if replica.ejected or replica.id not in self.replicas:
            return
        replica.ejected = True
        self.metrics.ejections.value += 1
        LOG.warning("a replica is set aside", extra={"region": self.region, "replica": replica.id})
        self._choose_from()
        self._probes[replica.id] = spawn(f"probe replica {replica.id}", self._probe(replica, failed=True))

    async def _probe(self, replica: Replica, *, failed: bool) -> None:
        """At once when it is new, after a rest when it has failed."""
        while failed or not await replica.probe():
            failed = False
            replica.rest_s = min(replica.rest_s * 2 or PROBE_FIRST_S, PROBE_LAST_S)
            await asyncio.sleep(replica.rest_s)
        self._probes.pop(replica.id, None)
        replica.ejected = False
        # It answers probes; whether it answers requests is shown by the next one.
        replica.failures = FAILURES - 1
        replica.latency_s = 0.0
        LOG.info("a replica takes requests", extra={"region": self.region, "replica": replica.id})
        self._choose_from()
        self._wake()

    def check(self) -> None:
        """Sets aside replicas whose connection broke while nobody asked them."""
        for replica in [replica for replica in self._usable if replica.broken]:
            self.eject(replica)

    def _choose_from(self) -> None:
        self._usable = [replica for replica in self.replicas.values() if not replica.ejected]

    def retire(self) -> None:
        """Nobody uses the link any more: its replicas are closed."""
        self.metrics.hide()
        for id in list(self.replicas):
            self.drain(id)

    async def close(self) -> None:
        """At the end of the process: connections are closed at once, requests on their way fail."""
        replicas = list(self.replicas.values())
        self.retire()
        await asyncio.gather(*(replica.close() for replica in replicas))
