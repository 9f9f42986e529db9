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
from encephalon.coordinator.link import LinkOptions
from encephalon.coordinator.loading import contract_of, manifest_of
from encephalon.coordinator.members import Connections, Watch
from encephalon.coordinator.served import Served
from encephalon.coordinator.standing import Standing
from encephalon.coordinator.statistics import count_failure, count_success
from encephalon.core.errors import EncephalonError, FailedPrecondition, InvalidInput, NotFound, Unavailable
from encephalon.core.inference import LoadParameter, ModelDescription, ModelIndexEntry, ModelStatistics
from encephalon.core.tasks import spawn
from encephalon.core.wire import InferRequest, InferResponse
from encephalon.library.brains import Brain

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
        self._default_timeout_s = default_timeout_s
        self._kept = kept
        self.standing = Standing(links, connections, watch)
        self.standing.changed = self._told
        self._served = self.standing.current
        # Brains that follow the library, by what is to be known of them.
        self.followed: dict[str, Following] = {}
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
                self.standing.release(served)
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
        served = self.standing.withdraw(name)
        if served is not None:
            self._unloaded[name] = served.brain
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

    async def prepare(self, brain: Brain, version: str) -> Served:
        """As `Standing.prepare`. Raises as `serve`."""
        async with self._loading:
            return self.standing.prepare(await self._resolved(brain), version)

    async def close(self) -> None:
        """Ends watches and connections; requests on their way fail."""
        await self.standing.close()

    def _put(self, brain: Brain) -> None:
        self.standing.put(brain)
        self._unloaded.pop(brain.name, None)
        self._waiting.pop(brain.name, None)

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
        reason = pending.waits_for if pending is not None else f"{self.followed[name].reference} means no version yet"
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
