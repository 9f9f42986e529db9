"""Brings a finished run into the library: its record with pictures, the networks it has made, and the new brain."""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.api.training.v1.training_pb2 import RunState
from encephalon.core.errors import FailedPrecondition, NotFound
from encephalon.learning.checkpoint import read_tensors
from encephalon.library.brains import Brain
from encephalon.library.brains.pinning import pinned
from encephalon.library.brains.releases import brain_of
from encephalon.library.library import Library
from encephalon.library.records import Reference
from encephalon.state import KeyValue, Objects, read
from encephalon.training.recording.drafts import Origin, brain_draft, network_draft, placed, run_draft
from encephalon.training.recording.figures import judgements, kept, quality, totals
from encephalon.training.recording.history import MOST_BYTES, History
from encephalon.training.recording.networks import learned_regions, made
from encephalon.training.runs import RunSettings, keys_of
from encephalon.training.states import unpacked

if TYPE_CHECKING:
    from torch import Tensor

    from encephalon.library.store.writer import Writer

__all__ = ["finish"]

LOG = structlog.get_logger(__name__)

RESTING: Final = (RunState.STATE_FAILED, RunState.STATE_STOPPED)


async def finish(
    key_value: KeyValue,
    objects: Objects,
    *,
    namespace: str,
    run: str,
    folder: Path,
    history: bytes | None = None,
) -> dict[str, str]:
    """References of what the run has made: networks by region, "brain", "run". Done twice, it makes nothing new.

    A run that failed or was stopped has only its own record made; one that still counts as running is taken for
    finished. history: lines of `History` in place of those that the state names. `folder` gets `history.jsonl`,
    `curves.png`, `shares.png` and `tensorboard/`, which become artefacts of the run's record.

    Raises NotFound for an unknown run, FailedPrecondition when it has no checkpoint, Corrupt, and errors of the store.
    """
    settings, state = await _read(key_value, namespace, run)
    told = await _history(objects, state, history)
    library = Library(key_value, objects, namespace=settings.library)
    brain = await library.show(settings.brain, "brain")
    with tempfile.TemporaryDirectory(prefix="encephalon-finish-") as scratch:
        tensors = await _tensors(objects, settings, state, Path(scratch))
    origin = Origin(
        settings,
        state,
        brain,
        (await library.resolve(settings.data, "data_set")).message,
        {
            region: await library.show(Reference.of(brain.brain.networks[region]))
            for region in learned_regions(kept(settings, state))
            if region in brain.brain.networks
        },
    )
    files = await asyncio.to_thread(_files, settings, state, told)
    await asyncio.to_thread(_save, folder, files, run)
    async with library.writing(f"record run {run}") as writer:
        artefacts = {name: await writer.put_bytes(data) for name, data in files.items()}
        draft = run_draft(origin, artefacts, totals(origin.judged, state, told))
        record = await placed(library, writer, draft, "run")
        found = {"run": str(Reference.of(record.id))}
        if state.state not in RESTING:
            found |= await _made(library, writer, origin, record.id, tensors)
    return found


async def _made(
    library: Library, writer: Writer, origin: Origin, run: pb.Reference, tensors: Mapping[str, Tensor]
) -> dict[str, str]:
    brain = brain_of(origin.brain)
    found = judgements(origin.settings, origin.state)
    networks: dict[str, Reference] = {}
    for region in learned_regions(kept(origin.settings, origin.state)):
        network, data = await made(library, brain, region, tensors, origin.settings, _version(origin))
        network.weights.CopyFrom(await writer.put_bytes(data))
        own = quality(origin.judged, found, _outputs(brain, region))
        record = await placed(library, writer, network_draft(origin, run, region, network, own), "network")
        networks[region] = Reference.of(record.id)
    body, parents = await pinned(library, brain, networks=networks, known=origin.brain.brain.networks)
    used = [parent for parent in parents if parent.role == "network"]
    draft = brain_draft(origin, run, body, used, quality(origin.judged, found))
    after = await placed(library, writer, draft, "brain")
    return {**{region: str(network) for region, network in networks.items()}, "brain": str(Reference.of(after.id))}


async def _read(key_value: KeyValue, namespace: str, run: str) -> tuple[RunSettings, RunState]:
    settings_key, state_key, _ = keys_of(namespace, run)
    settings, state = await key_value.get(settings_key), await key_value.get(state_key)
    if settings is None or state is None:
        raise NotFound(f"there is no run '{run}' in namespace '{namespace}' that has begun", run=run)
    return RunSettings.read(settings.value), unpacked(state.value, run)


async def _history(objects: Objects, state: RunState, given: bytes | None) -> History:
    if given is None:
        given = await read(objects, state.history_key, most=2 * MOST_BYTES) if state.history_key else b""
    return History.read(given)


async def _tensors(objects: Objects, settings: RunSettings, state: RunState, folder: Path) -> dict[str, Tensor]:
    """Of the best or last checkpoint; none of a run that rests, whose networks are not made yet."""
    if state.state in RESTING:
        return {}
    checkpoint = kept(settings, state)
    if not checkpoint.pieces:
        raise FailedPrecondition(f"run '{state.run}' has no checkpoint to make networks of; resume it", run=state.run)
    return await read_tensors(objects, checkpoint, folder)


def _files(settings: RunSettings, state: RunState, history: History) -> dict[str, bytes]:
    """Artefacts by name. Where the packages that draw are not there, what was learned is kept all the same."""
    files = {"history.jsonl": history.dump()}
    try:
        files |= _drawn(settings, state, history)
    except ImportError as error:
        LOG.warning("no pictures are drawn, pip install 'encephalon[training]'", run=settings.run, cause=str(error))
    return files


def _drawn(settings: RunSettings, state: RunState, history: History) -> dict[str, bytes]:
    from encephalon.training.recording.curves import curves
    from encephalon.training.recording.shares import shares_picture
    from encephalon.training.recording.tensorboard import events

    title = f"Run {settings.run}: {settings.brain.partition(':')[2]} on {settings.data.partition(':')[2]}"
    workers = len({worker for step in history.steps for worker in step.shares})
    test = state.test if state.HasField("test") else None
    name, board = events(history, state.started_time.ToNanoseconds() / 1e9)
    return {
        "curves.png": curves(history, f"{title}, {workers} {'worker' if workers == 1 else 'workers'}", test),
        "shares.png": shares_picture(history, f"{title}, batch of {settings.batch_size}, plan {settings.plan}"),
        f"tensorboard/{name}": board,
    }


def _save(folder: Path, files: Mapping[str, bytes], run: str) -> None:
    """Each as a whole, for another process may be doing the same. They are in the library too, so a full disk is none
    of its concern."""
    try:
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
            try:
                part.write_bytes(data)
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
    except OSError as error:
        LOG.warning("the pictures of a run are only in the library", run=run, folder=str(folder), cause=str(error))


def _outputs(brain: Brain, region: str) -> list[str]:
    """Of the brain, that are this region's own: how well these are is how well its network is."""
    return [output.name for output in brain.outputs if output.source.region == region]


def _version(origin: Origin) -> str:
    """Of a weights file, as a region tells it: short, and of letters that all of them take."""
    return f"{origin.settings.run[:40]}.{kept(origin.settings, origin.state).version}"
