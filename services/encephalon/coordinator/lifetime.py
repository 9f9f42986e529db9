"""A coordinator as a block: its brains are served while the block lasts."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from encephalon.coordinator.admission import Admission
from encephalon.coordinator.brains import Brains
from encephalon.coordinator.following import followed
from encephalon.coordinator.kept import KeptBrains
from encephalon.coordinator.link import LinkOptions
from encephalon.coordinator.members import Connections, Hosting
from encephalon.coordinator.replicas import Answering
from encephalon.coordinator.service import CoordinatorService
from encephalon.coordinator.settings import CoordinatorSettings
from encephalon.core.errors import InvalidInput
from encephalon.core.host import host_identity
from encephalon.core.inference import InferenceService
from encephalon.core.serving import Limits, Server, serving
from encephalon.core.shared_memory import SharedMemory
from encephalon.core.tasks import background
from encephalon.core.version import installed_version
from encephalon.discovery import watch
from encephalon.library.brains import Brain
from encephalon.library.brains.releases import records_of
from encephalon.library.records import Reference
from encephalon.state import KeyValue

__all__ = ["Coordinator", "coordinate"]

# A message that is a little too large should be refused with a sentence, and not end its stream.
MARGIN_BYTES = 1 << 20

Colocated = Mapping[str, Mapping[str, Sequence[Answering]]]


@dataclass(frozen=True, slots=True)
class Coordinator:
    """A running coordinator."""

    brains: Brains
    server: Server


@contextlib.asynccontextmanager
async def coordinate(
    settings: CoordinatorSettings,
    brains: Iterable[Brain],
    *,
    store: KeyValue | None = None,
    colocated: Colocated | None = None,
    hosting: Mapping[str, Hosting] | None = None,
) -> AsyncIterator[Coordinator]:
    """Serves `brains`, those of the library that the settings say, and those kept in `store`, where the regions
    announce themselves (None: no discovery).

    `colocated`: brain to region to actors in this process; `hosting` the same of brains that follow the library.
    FailedPrecondition when an address is in use.
    """
    references = [Reference.parse(text, "brain") for text in settings.follow]
    kept = KeptBrains(store, settings.namespace) if store is not None else None
    admission = Admission(settings.max_in_flight, settings.max_in_flight_bytes, settings.max_message_bytes)
    served = Brains(
        admission=admission,
        links=LinkOptions(settings.replica_grace_s),
        connections=Connections(
            host=host_identity(),
            max_message_bytes=settings.max_message_bytes,
            share=settings.share_with_regions,
            pressure=lambda: admission.requests,
            colocated=colocated or {},
            hosting=hosting or {},
        ),
        default_timeout_s=settings.default_timeout_s,
        watch=partial(watch, store, settings.namespace) if store is not None else None,
        kept=kept,
    )
    memory = SharedMemory(settings.shared_memory) if settings.shared_memory else None
    inference = InferenceService(
        served,
        shared_memory=memory,
        default_timeout_s=settings.default_timeout_s,
        max_message_bytes=settings.max_message_bytes,
        version=installed_version(),
    )
    try:
        following_library = {reference.name for reference in references}
        for brain in (*((await kept.all()) if kept is not None else ()), *brains):
            if brain.name not in following_library:
                served.serve_when_possible(brain)
        async with (
            following(served, settings, store, references),
            background("check connections", served.check_connections()),
            serving(
                [inference.handler(), CoordinatorService(served).handler()],
                addresses=[settings.listen, *([f"unix:{settings.unix}"] if settings.unix else [])],
                limits=Limits(max_message_bytes=settings.max_message_bytes + MARGIN_BYTES),
                ready=served.ready,
            ) as server,
        ):
            try:
                yield Coordinator(served, server)
            finally:
                inference.drain()
    finally:
        await served.close()
        if memory is not None:
            memory.close()


@contextlib.asynccontextmanager
async def following(
    brains: Brains, settings: CoordinatorSettings, store: KeyValue | None, references: Iterable[Reference]
) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for reference in references:
            if store is None:
                raise InvalidInput(f"to follow {reference} the library's store is needed; give --state")
            if reference.name in brains.followed:
                raise InvalidInput(f"brain '{reference.name}' is to be followed twice; say which version once")
            library = records_of(store, settings.library)
            await stack.enter_async_context(followed(brains, library, store, settings.namespace, reference))
        yield
