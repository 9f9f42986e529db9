"""The settings of a run from what its user asked for: a new run, or one that goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from encephalon.api.training.v1.training_pb2 import RunState
from encephalon.core.errors import FailedPrecondition, InvalidInput
from encephalon.library.brains import Brain, load_manifest
from encephalon.library.records import Reference
from encephalon.local.training.given import brain_record, check_names, data_record, manifest_of
from encephalon.local.training.kept import Runs
from encephalon.local.training.optimising import named_as_torch, with_schedule
from encephalon.training.runs import RunSettings

if TYPE_CHECKING:
    from encephalon.library.library import Library

__all__ = ["CHANGEABLE", "Asked", "asked", "resumed"]

CHANGEABLE: Final = frozenset(
    {"workers", "shards", "threads", "epochs", "most_steps", "patience", "checkpoint_steps", "non_finite"}
)
"""What a run that goes on may do otherwise than before: it is the same run still."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What `training` takes: the settings, and the regions that live in processes of their own in a pipeline.
    `processes` is how many workers are started.
    """

    settings: RunSettings
    regions: tuple[str, ...]
    processes: int
    resume: bool = False


async def asked(library: Library, runs: Runs, brain: str | Path, data: str, values: Mapping[str, Any]) -> Asked:
    """A new run; without `run` among the values, which are fields of RunSettings, it is called after its brain.

    InvalidInput, InvalidManifest and NotFound say what cannot be, with the nearest name.
    """
    brain_found, data_found = await brain_record(library, brain), await data_record(library, data)
    settings = RunSettings.checked(
        **{
            "run": await runs.free_name(brain_found.id.name),
            **named_as_torch(values),
            "brain": str(Reference.of(brain_found.id)),
            "data": str(Reference.of(data_found.id)),
            "library": library.namespace,
        }
    )
    found = check_names(settings, brain_found, data_found)
    if not settings.targets:  # said, so that everybody knows which accuracy is meant
        settings = settings.model_copy(update={"targets": {found.outputs[0].name: 1.0}})
    return Asked(with_schedule(settings, data_found), regions_of(found), settings.workers)


async def resumed(
    library: Library, runs: Runs, run: str, values: Mapping[str, Any], *, brain: str | Path = "", data: str = ""
) -> Asked:
    """A run that goes on from its last checkpoint; brain and data may be named again. InvalidInput for what would make
    it another run, FailedPrecondition when it has succeeded.
    """
    kept = await runs.settings(run)
    for what, was, given in (("brain", kept.brain, brain), ("data_set", kept.data, data)):
        if given and name_of(given, what) != Reference.parse(was).name:
            raise InvalidInput(f"run '{run}' is of {was} and not of {given}; leave it out, or start a new run")
    state, _ = await runs.state(run)
    if state.state == RunState.STATE_SUCCEEDED:
        raise FailedPrecondition(f"run '{run}' has succeeded; there is nothing to go on with", run=run)
    changed = {name: value for name, value in named_as_torch(values).items() if value != getattr(kept, name)}
    if others := sorted(set(changed) - CHANGEABLE):
        name = others[0]
        raise InvalidInput(
            f"run '{run}' began with {name} {getattr(kept, name)!r}, and cannot go on with {changed[name]!r}; "
            f"leave it out, or start a new run (what may change: {', '.join(sorted(CHANGEABLE))})"
        )
    processes = changed.get("workers", kept.workers)
    if kept.plan == "fixed":  # its shares are those of so many workers, whoever computes them
        changed.pop("workers", None)
    settings = RunSettings.checked(**{**kept.model_dump(), **changed})
    found = check_names(settings, await library.show(kept.brain), await library.show(kept.data))
    return Asked(settings, regions_of(found), processes, resume=True)


def name_of(given: str | Path, kind: str) -> str:
    path = manifest_of(given) if kind == "brain" else None
    return load_manifest(path).name if path is not None else Reference.parse(str(given), kind).name


def regions_of(brain: Brain) -> tuple[str, ...]:
    return tuple(region.name for region in brain.regions if not region.address)
