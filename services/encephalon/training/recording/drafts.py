"""The records that a run leaves in the library, before they are written. Imports no torch.

    brain, its networks that learned, data set -> run -> new networks -> new brain

They say nothing that changes when they are drafted again, so that a run that is recorded twice leaves one of each.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.api.training.v1.training_pb2 import RunState
from encephalon.core.errors import NotFound
from encephalon.library.brains.releases import brain_of
from encephalon.library.builtins.drafts import TAGS
from encephalon.library.records import Reference
from encephalon.training.recording.figures import kept
from encephalon.training.runs import RunSettings

if TYPE_CHECKING:
    from encephalon.library.library import Library
    from encephalon.library.store.writer import Writer

__all__ = ["MADE_BY", "REGION", "Origin", "brain_draft", "network_draft", "placed", "run_draft"]

MADE_BY: Final = "run"
"""Tag of networks and brains: the reference of the run that has made them."""
REGION: Final = "region"
"""Tag of networks: the region of the brain in which they learned."""
STARTED, STATE, STEP = "started", "state", "step"
"""Tags of runs: tell a run from an earlier one of the same name, and from itself before it was resumed."""
MOST_PARENTS: Final = 40
"""Networks among the parents of a run; a record has at most 45 parents."""

STATES: Final = {
    RunState.STATE_FAILED: pb.Run.STATE_FAILED,
    RunState.STATE_STOPPED: pb.Run.STATE_STOPPED,
}


@dataclass(frozen=True, slots=True)
class Origin:
    """What a run began with."""

    settings: RunSettings
    state: RunState
    brain: pb.Record
    data: pb.Reference
    networks: Mapping[str, pb.Record] = field(default_factory=dict)
    """Of the regions that learned and have a record, by region."""

    @property
    def steps(self) -> int:
        """Updates behind what the networks are made of."""
        return int(kept(self.settings, self.state).version)

    @property
    def judged(self) -> RunSettings:
        """The settings with the target that they leave to the brain: its first output."""
        if self.settings.targets:
            return self.settings
        return self.settings.model_copy(update={"targets": {brain_of(self.brain).outputs[0].name: 1.0}})

    @property
    def data_name(self) -> str:
        return f"{self.data.name}@{self.data.version}"


def run_draft(origin: Origin, artefacts: Mapping[str, pb.Object], metrics: Mapping[str, float]) -> pb.Record:
    state = origin.state
    body = pb.Run(
        state=STATES.get(state.state, pb.Run.STATE_SUCCEEDED),
        started_time=state.started_time,
        settings=origin.settings.model_dump_json(),
        artefacts=artefacts,
    )
    if state.changed_time.ToNanoseconds() >= state.started_time.ToNanoseconds() > 0:
        body.ended_time.CopyFrom(state.changed_time)
    networks = {bytes_of(record.id): record.id for record in origin.networks.values()}
    return pb.Record(
        id=pb.Reference(kind=pb.KIND_RUN, name=origin.settings.run),
        description=f"{origin.brain.id.name}@{origin.brain.id.version} learns {origin.data_name}, "
        f"{state.checkpoint.version} updates ({origin.settings.mode})"
        + (f": {state.sentence}" if state.sentence and state.state in STATES else ""),
        tags={
            STARTED: state.started_time.ToJsonString(),
            STATE: pb.Run.State.Name(body.state).removeprefix("STATE_").lower(),
            STEP: str(state.checkpoint.version),
        },
        parents=[
            pb.Parent(record=origin.brain.id, role="brain"),
            pb.Parent(record=origin.data, role="data_set"),
            *(pb.Parent(record=id, role="network") for id in list(networks.values())[:MOST_PARENTS]),
        ],
        metrics=metrics,
        run=body,
    )


def network_draft(
    origin: Origin, run: pb.Reference, region: str, body: pb.Network, metrics: Mapping[str, float]
) -> pb.Record:
    """The next version of the region's network; of one that has no record, the first, called BRAIN-REGION."""
    before = origin.networks.get(region)
    brain = origin.brain.id
    parents = [pb.Parent(record=run, role="run"), pb.Parent(record=origin.data, role="data_set")]
    if before is not None:
        parents += [pb.Parent(record=before.id, role="network")]
        parents += [parent for parent in before.parents if parent.role == "area"]
    return pb.Record(
        id=pb.Reference(kind=pb.KIND_NETWORK, name=before.id.name if before else f"{brain.name}-{region}"),
        description=f"{body.architecture} as region '{region}' of {brain.name}@{brain.version}, which learned "
        f"{origin.data_name} for {origin.steps} updates",
        tags={MADE_BY: str(Reference.of(run)), REGION: region, "trained_on": origin.data.name},
        parents=parents,
        licence=before.licence if before else "",
        origin=f"training run {run.name}",
        metrics=metrics,
        network=body,
    )


def brain_draft(
    origin: Origin,
    run: pb.Reference,
    body: pb.Brain,
    networks: Iterable[pb.Parent],
    metrics: Mapping[str, float],
) -> pb.Record:
    brain = origin.brain
    return pb.Record(
        id=pb.Reference(kind=pb.KIND_BRAIN, name=brain.id.name),
        description=f"{brain.id.name}@{brain.id.version} after {origin.steps} updates on {origin.data_name}",
        tags={
            **{name: tag for name, tag in brain.tags.items() if name not in TAGS},
            MADE_BY: str(Reference.of(run)),
            "trained_on": origin.data.name,
        },
        parents=[
            *networks,
            pb.Parent(record=run, role="run"),
            pb.Parent(record=origin.data, role="data_set"),
            pb.Parent(record=brain.id, role="previous"),
        ],
        licence=brain.licence,
        origin=f"training run {run.name}",
        metrics=metrics,
        brain=body,
    )


async def placed(library: Library, writer: Writer, draft: pb.Record, kind: str) -> pb.Record:
    """Writes the draft, unless there is a version with the same tags: the run was recorded before."""
    with contextlib.suppress(NotFound):
        for version in reversed(await library.versions(kind, draft.id.name)):
            record = await library.show(Reference(draft.id.name, version, kind))
            if record.tags == draft.tags:
                return record
    return await writer.commit(draft, reuse=True)


def bytes_of(reference: pb.Reference) -> bytes:
    return reference.SerializeToString(deterministic=True)
