"""The brains that a coordinator serves: loaded, replaced and unloaded while requests run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from encephalon.coordinator.activations import nbytes_of
from encephalon.coordinator.admission import Admission
from encephalon.coordinator.execution import Execution
from encephalon.coordinator.kept import KeptBrains
from encephalon.coordinator.link import Link, LinkOptions
from encephalon.coordinator.loading import contract_of, manifest_of, same_servers
from encephalon.coordinator.members import Connections, Members, Supplied, Watch
from encephalon.coordinator.served import Served
from encephalon.coordinator.statistics import count_failure, count_success
from encephalon.core.errors import EncephalonError, FailedPrecondition, InvalidInput, NotFound, Unavailable
from encephalon.core.inference import LoadParameter, ModelDescription, ModelIndexEntry, ModelStatistics
from encephalon.core.tasks import spawn
from encephalon.core.wire import InferRequest, InferResponse
from encephalon.library.brains import Brain, Region, identity_of

__all__ = ["Brains", "Following", "Pending"]

LOG = logging.getLogger(__name__)

MAX_BRAINS = 1000
CHECK_S = 0.5
# How long loading waits for replicas, which may not have been started yet, and how often it looks.
CONNECTED_S, LOOK_S = 2.0, 0.01
RETRY_FIRST_S, RETRY_LAST_S = 0.5, 10.0


@dataclass(frozen=True, slots=True)
class Pending:
    """A version of a followed brain that is not in service yet, and why. `failed`: somebody cannot load his part."""

    version: str
    waits_for: str
    failed: bool = False


class Following(Protocol):
    """What keeps a followed brain at the version that its reference in the library means."""

    @property
    def reference(self) -> str: ...

    @property
    def pending(self) -> Pending | None: ...

    def changed(self) -> None:
        """Other versions of the brain are in use."""
        ...


class Brains:
    """Implements `core.inference.Models`; every method runs on the event loop."""

    def __init__(
        self,
        *,
        admission: Admission,
        links: LinkOptions,
        connections: Connections,
        default_timeout_s: float = 30.0,
        watch: Watch | None = None,
        kept: KeptBrains | None = None,
    ) -> None:
        self._admission = admission
        self._link_options = links
        self._connections = connections
        self._default_timeout_s = default_timeout_s
        self._watch = watch
        self._kept = kept
        self._served: dict[str, Served] = {}
        self._members: dict[str, Members] = {}
        # Versions of followed brains with links of their own: in service, to be so next, and still in use.
        self._live: dict[str, list[Served]] = {}
        # Brains that follow the library, by what is to be known of them.
        self.followed: dict[str, Following] = {}
        self._versions: dict[str, int] = {}
        # Brains that are not served: unloaded, or waiting for a server that must say its contract.
        self._unloaded: dict[str, Brain] = {}
        self._waiting: dict[str, tuple[Brain, str]] = {}
        self._loading = asyncio.Lock()
        self._loop = asyncio.get_running_loop()

    # What the protocol asks

    def server_name(self) -> str:
        return "encephalon"

    def ready(self) -> bool:
        if self._waiting or not self.followed.keys() <= self._served.keys():
            return False
        return not any(served.why_not_ready() for served in self._served.values())

    def model_ready(self, name: str, version: str = "") -> bool:
        if name in self._waiting or (name in self.followed and name not in self._served):
            return False
        return not self.served(name, version).why_not_ready()

    def describe(self, name: str, version: str = "") -> ModelDescription:
        return self.served(name, version).describe()

    def statistics(self, name: str = "", version: str = "") -> Sequence[ModelStatistics]:
        if name:
            return [self.served(name, version).statistics]
        return [served.statistics for served in self._served.values()]

    def index(self) -> Sequence[ModelIndexEntry]:
        entries = []
        for name, served in self._served.items():
            reason = served.why_not_ready()
            entries.append(ModelIndexEntry(name, served.version, "UNAVAILABLE" if reason else "READY", reason))
        entries += [ModelIndexEntry(name, "", "LOADING", reason) for name, (_, reason) in self._waiting.items()]
        for name, following in self.followed.items():
            if following.pending is not None:
                entries.append(ModelIndexEntry(name, following.pending.version, "LOADING", following.pending.waits_for))
        entries += [ModelIndexEntry(name, "", "UNAVAILABLE", "unloaded") for name in self._unloaded]
        return entries

    async def infer(self, request: InferRequest, deadline: float | None = None) -> InferResponse:
        served = self.served(request.model_name, request.model_version)
        nbytes = nbytes_of(request.inputs)
        self._admission.enter(nbytes)
        served.running += 1
        started = monotonic()
        try:
            response = await self._execution(served, request, deadline).run()
        except EncephalonError as error:
            count_failure(served.statistics, int((monotonic() - started) * 1e9))
            served.metrics.failed(error.reason)
            raise
        finally:
            self._admission.leave(nbytes)
            served.running -= 1
            if not served.running:
                self._release(served)
        took = monotonic() - started
        count_success(served.statistics, rows_of(request), int(took * 1e9))
        served.metrics.answered(took, incomplete=bool(response.parameters["missing_regions"]))
        return response

    def _execution(self, served: Served, request: InferRequest, deadline: float | None) -> Execution:
        served.contract.check_inputs(request.inputs)
        plan = served.plan
        if request.outputs:
            plan = plan.only([output.name for output in request.outputs])
        if deadline is None:
            deadline = self._loop.time() + self._default_timeout_s
        return Execution(plan, served.route(plan), request, deadline, served.version, self._loop)

    async def load(self, name: str, parameters: Mapping[str, LoadParameter]) -> None:
        """`config` is the manifest, as YAML or JSON; without it a brain that was unloaded comes back.

        Returns when the brain can answer, or after a while when some of its regions are not there yet.
        """
        self._check_free(name)
        brain = self._wanted(name, parameters)
        await self.serve(brain)
        await self._connected(name)
        if self._kept is not None:
            await self._kept.keep(brain)

    async def unload(self, name: str, parameters: Mapping[str, LoadParameter]) -> None:
        """New requests get NotFound; those that run are finished."""
        self._check_free(name)
        if name not in self._served and name not in self._waiting:
            raise self._unknown(name)
        self._waiting.pop(name, None)
        served = self._served.pop(name, None)
        if served is not None:
            self._unloaded[name] = served.brain
            self._members.pop(name).stop()
            if not served.running:
                self._release(served)
        if self._kept is not None:
            await self._kept.forget(name)

    # What a coordinator does beyond it

    def served(self, name: str, version: str = "") -> Served:
        """NotFound for a brain that is not loaded and for a version that is not the one in service."""
        served = self._served.get(name)
        if served is None:
            raise self._unknown(name) if name not in self.followed else self._not_yet(name)
        if version and version != served.version:
            raise NotFound(
                f"brain '{name}' is in service as version {served.version}; version {version} is not", brain=name
            )
        return served

    async def serve(self, brain: Brain) -> None:
        """Loads or replaces a brain; requests that run finish on the old one. On an error the old one stays.

        Unavailable when a server that must say its contract cannot be reached; InvalidManifest when it does not fit.
        """
        async with self._loading:
            if len(self._served) >= MAX_BRAINS and brain.name not in self._served:
                raise InvalidInput(f"{MAX_BRAINS} brains are loaded, which is the most; unload one first")
            self._put(await self._resolved(brain))

    async def _resolved(self, brain: Brain) -> Brain:
        if not brain.unresolved:
            return brain
        return brain.resolved({region.name: await contract_of(region) for region in brain.unresolved})

    async def _connected(self, name: str) -> None:
        """Replicas that are announced already are found and reached within moments."""
        limit = self._loop.time() + CONNECTED_S
        # Readiness has many causes, and a load is rare: looking is simpler than being told.
        while (served := self._served.get(name)) and served.why_not_ready() and self._loop.time() < limit:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)

    def serve_when_possible(self, brain: Brain) -> None:
        """As `serve`, but tries again and again while a server that must say its contract is away."""
        if not brain.unresolved:
            self._put(brain)
            return
        self._waiting[brain.name] = (brain, "its regions' servers have not been asked yet")
        spawn(f"load brain {brain.name}", self._keep_trying(brain))

    async def check_connections(self) -> None:
        """For ever: what is not asked may break unnoticed, and readiness must be true all the same."""
        while True:
            await asyncio.sleep(CHECK_S)
            for served in self._served.values():
                for link in served.links.values():
                    link.check()

    # What follows the library

    async def prepare(self, brain: Brain, version: str) -> Served:
        """A version of a followed brain, beside the one in service: its links are supplied, but no request uses it yet.

        It must be given to `switch` or to `discard`. Raises as `serve`.
        """
        async with self._loading:
            brain = await self._resolved(brain)
            links = {region.name: self._link(brain, region, identity_of(region)) for region in brain.regions}
            served = Served(brain, version, links, released=True)
            self._live.setdefault(brain.name, []).append(served)
            self._supply(brain.name)
            return served

    def waits_for(self, served: Served) -> tuple[str, bool]:
        """What keeps a prepared version from taking over, and whether somebody has failed; empty when nothing does.

        That is a region which no request can do without, and any other one that somebody is there to serve: requests
        would go on without it, but less well than before.
        """
        members, reasons = self._members[served.brain.name], [served.why_not_ready()]
        for region in served.brain.regions:
            link = served.links[region.name]
            if reason := members.failed(region, link.version) if not link.ready else "":
                return reason, True
            if not link.ready and members.expects(region):
                reasons.append(link.why_not_ready())
        return next((reason for reason in reasons if reason), ""), False

    def switch(self, served: Served) -> None:
        """From now on requests run on this version; those that run already finish on theirs."""
        old = self._served.get(served.brain.name)
        self._enter(served)
        if old is not None and not old.running:
            self._release(old)

    def discard(self, served: Served) -> None:
        """It will not be in service after all."""
        if self._served.get(served.brain.name) is not served:
            self._release(served)

    def in_service(self, name: str) -> Served | None:
        return self._served.get(name)

    def in_use(self, name: str) -> list[str]:
        """The versions of a followed brain that requests run on, or will."""
        current = self._served.get(name)
        return [served.version for served in self._live.get(name, ()) if served is current or served.running]

    async def close(self) -> None:
        """Ends watches and connections; requests on their way fail."""
        for members in self._members.values():
            members.stop()
        everything = [*self._served.values(), *(served for live in self._live.values() for served in live)]
        links = {id(link): link for served in everything for link in served.links.values()}
        self._served.clear()
        self._live.clear()
        await asyncio.gather(*(link.close() for link in links.values()))

    def _put(self, brain: Brain) -> None:
        name = brain.name
        old = self._served.get(name)
        links = {region.name: self._link(brain, region, "") for region in brain.regions}
        version = self._versions[name] = self._versions.get(name, 0) + 1
        served = Served(brain, str(version), links)
        self._members_of(name).supply(Supplied(brain, links))
        self._enter(served)
        self._unloaded.pop(name, None)
        self._waiting.pop(name, None)
        if old is not None and not old.running:
            self._release(old)

    def _enter(self, served: Served) -> None:
        self._served[served.brain.name] = served
        for link in served.links.values():
            link.show()
        LOG.info("a brain is in service", extra={"brain": served.brain.name, "version": served.version})
        self._told(served.brain.name)

    def _members_of(self, name: str) -> Members:
        members = self._members.get(name)
        if members is None:
            members = self._members[name] = Members(name, self._connections)
            if self._watch is not None:
                members.follow(self._watch)
        return members

    def _supply(self, name: str) -> None:
        self._members_of(name).supply(*(Supplied(served.brain, served.links) for served in self._live[name]))

    def _link(self, brain: Brain, region: Region, identity: str) -> Link:
        """The old link where the region stays what it was, with its connections and what is known of them."""
        for served in (self._served.get(brain.name), *reversed(self._live.get(brain.name, ()))):
            link = served.links.get(region.name) if served is not None else None
            if served is None or link is None or link.version != identity:
                continue
            if same_servers(served.brain.region(region.name), region):
                return link
        return Link(brain.name, region.name, self._link_options, identity)

    def _release(self, served: Served) -> None:
        """Closes the links of a version that is neither in service nor in use, save those that another one has."""
        name = served.brain.name
        current = self._served.get(name)
        if current is served:
            return
        others = [current] if current is not None else []
        if served.released:
            if served not in self._live.get(name, ()):
                return  # it is over already, or still to come
            self._live[name].remove(served)
            others += self._live[name]
            self._supply(name)
        kept = {id(link) for other in others for link in other.links.values()}
        for link in served.links.values():
            if id(link) not in kept:
                link.retire()
        self._told(name)

    def _told(self, name: str) -> None:
        following = self.followed.get(name)
        if following is not None:
            following.changed()

    def _check_free(self, name: str) -> None:
        following = self.followed.get(name)
        if following is not None:
            raise FailedPrecondition(
                f"brain '{name}' follows {following.reference} of the library; move the alias instead", brain=name
            )

    def _not_yet(self, name: str) -> Unavailable:
        pending = self.followed[name].pending
        reason = pending.waits_for if pending is not None else "the library has not been read yet"
        return Unavailable(f"brain '{name}' is not loaded yet: {reason}", brain=name)

    def _wanted(self, name: str, parameters: Mapping[str, LoadParameter]) -> Brain:
        brain = manifest_of(name, parameters)
        return self._known(name) if brain is None else brain

    def _known(self, name: str) -> Brain:
        if name in self._unloaded:
            return self._unloaded[name]
        if name in self._waiting:
            return self._waiting[name][0]
        return self.served(name).brain

    def _unknown(self, name: str) -> NotFound:
        known = ", ".join(self._served) or "none"
        return NotFound(f"no brain '{name}' is loaded; loaded are: {known}", brain=name)

    async def _keep_trying(self, brain: Brain) -> None:
        wait = RETRY_FIRST_S
        while self._waiting.get(brain.name, (None,))[0] is brain:
            try:
                await self.serve(brain)
            except EncephalonError as error:
                self._waiting[brain.name] = (brain, error.message)
                LOG.warning("a brain waits for a server", extra={"brain": brain.name, "error": error.message})
                await asyncio.sleep(wait)
                wait = min(wait * 2, RETRY_LAST_S)


def rows_of(request: InferRequest) -> int:
    shape = request.inputs[0].shape
    return shape[0] if shape else 1
