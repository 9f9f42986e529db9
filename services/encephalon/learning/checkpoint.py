"""Checkpoints: the parameters, and what optimiser and schedule remember, as pieces in the object store.

A piece is a safetensors file with `parameter:TENSOR:START:STOP` (float32, flat) and `slot:NAME:TENSOR:START:STOP`;
TENSOR is a number in the checkpoint's list. Its metadata (JSON) are the version, the optimiser, the numbers that slots
share by slice, and the state of the schedule. Pieces are read by whoever needs elements of them, however they were cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.core.errors import Corrupt, InvalidInput
from encephalon.learning.coverage import Cut, cuts_of, inconsistent, matched
from encephalon.learning.layout import count
from encephalon.learning.piece import PieceFile, Written, chunks_of, write
from encephalon.state import Objects

__all__ = [
    "Content",
    "Held",
    "Scalars",
    "Slots",
    "piece_of",
    "read_slices",
    "read_tensors",
    "write_initial",
    "write_piece",
]

Slots: TypeAlias = dict[str, torch.Tensor]
"""By name, of one slice: flat float32 of its elements, or in a shape of its own, which cannot be cut."""
Scalars: TypeAlias = dict[str, Any]
"""By name, of one slice: a number, or [dtype, number] for a tensor without dimensions."""


@dataclass(slots=True)
class Held:
    """What a checkpoint has beside parameters, by the number of the slice in the layout that asks."""

    version: int
    optimizer: str = ""
    slots: dict[int, Slots] = field(default_factory=dict)
    scalars: dict[int, Scalars] = field(default_factory=dict)
    schedule: dict[str, Any] | None = None


class Content(NamedTuple):
    """What a shard writes: slices with their parameters, slots and scalars."""

    held: Held
    parameters: Mapping[int, torch.Tensor]


async def write_initial(objects: Objects, key: str, tensors: Sequence[tuple[pb.Tensor, torch.Tensor]]) -> pb.Checkpoint:
    """Version 0, as one piece. InvalidInput for a tensor that is not float32 of its shape, or not finite; errors of the
    store as they are."""
    for described, tensor in tensors:
        if tuple(tensor.shape) != tuple(described.shape) or tensor.dtype != torch.float32:
            raise InvalidInput(
                f"tensor '{described.name}' is {tensor.dtype} {list(tensor.shape)}, expected float32 "
                f"{list(described.shape)}",
                tensor=described.name,
            )
        if not bool(torch.isfinite(tensor).all()):
            raise InvalidInput(f"tensor '{described.name}' is not finite; give other weights", tensor=described.name)
    slices = [pb.Slice(tensor=at, start=0, stop=count(described)) for at, (described, _) in enumerate(tensors)]
    flat = {
        _name("parameter", cut): tensor.detach().contiguous().view(-1)
        for cut, (_, tensor) in zip(slices, tensors, strict=True)
    }
    digest = hashlib.sha256()

    async def source() -> AsyncIterator[bytes]:
        for chunk in chunks_of(flat, _metadata(Held(0), {})):
            digest.update(chunk)
            yield bytes(chunk)

    stored = await objects.put(key, source())
    piece = pb.Piece(key=key, sha256=digest.hexdigest(), size=stored.size, slices=slices)
    return pb.Checkpoint(version=0, tensors=[described for described, _ in tensors], pieces=[piece])


def write_piece(path: Path, layout: pb.Layout, content: Content) -> Written:
    """To a new local file. The tensors are in no other order than that of the layout. FailedPrecondition when the disk
    does not take it."""
    tensors: dict[str, torch.Tensor] = {}
    for number, parameter in content.parameters.items():
        tensors[_name("parameter", layout.slices[number])] = parameter
        for name, slot in content.held.slots.get(number, {}).items():
            tensors[_name(f"slot:{name}", layout.slices[number])] = slot.contiguous()
    scalars = {_where(layout.slices[number]): each for number, each in content.held.scalars.items()}
    return write(path, chunks_of(tensors, _metadata(content.held, scalars)))


def piece_of(key: str, written: Written, layout: pb.Layout, numbers: Sequence[int]) -> pb.Piece:
    """The description of a piece that was written."""
    cuts = [layout.slices[number] for number in numbers]
    slices = [pb.Slice(tensor=cut.tensor, start=cut.start, stop=cut.stop) for cut in cuts]
    return pb.Piece(key=key, sha256=written.sha256, size=written.size, slices=slices)


async def read_tensors(objects: Objects, checkpoint: pb.Checkpoint, folder: Path) -> dict[str, torch.Tensor]:
    """All tensors by name, float32 in their shapes. NotFound for a missing piece; Corrupt for one that is damaged, and
    when not every element is there exactly once. `folder` has each piece for a moment."""
    cuts = cuts_of(checkpoint)
    found = {tensor.name: torch.empty(tuple(tensor.shape), dtype=torch.float32) for tensor in checkpoint.tensors}
    for number, piece in enumerate(checkpoint.pieces):
        async with _fetched(objects, checkpoint, piece, folder) as file:
            for at, tensor in enumerate(checkpoint.tensors):
                flat = found[tensor.name].view(-1)
                for cut in cuts[at]:
                    if cut.piece == number:
                        name = _name("parameter", pb.Slice(tensor=at, start=cut.start, stop=cut.stop))
                        await asyncio.to_thread(file.read_into, name, flat[cut.start : cut.stop], 0)
    return found


async def read_slices(
    objects: Objects, checkpoint: pb.Checkpoint, layout: pb.Layout, into: Mapping[int, torch.Tensor], folder: Path
) -> Held:
    """Fills the slices, by their numbers in the layout, and gives what belongs to them, whatever layout wrote it.

    Fetches only pieces that have some of their elements. Errors as `read_tensors`; FailedPrecondition when the
    checkpoint is of another model.
    """
    cuts = cuts_of(checkpoint)
    numbers = matched(checkpoint, layout)
    held = Held(checkpoint.version)
    wanted: dict[int, list[tuple[int, Cut]]] = {}
    for number in into:
        cut = layout.slices[number]
        for part in cuts[numbers[cut.tensor]]:
            if part.start < cut.stop and cut.start < part.stop:
                wanted.setdefault(part.piece, []).append((number, part))
    # One piece says optimiser and schedule, which a shard without a slice has too.
    for number in sorted(wanted) or range(len(checkpoint.pieces))[:1]:
        async with _fetched(objects, checkpoint, checkpoint.pieces[number], folder) as file:
            parts = wanted.get(number, [])
            await asyncio.to_thread(_take, file, held, layout, numbers, parts, into, first=number == min(wanted or [0]))
    return held


def _take(
    file: PieceFile,
    held: Held,
    layout: pb.Layout,
    numbers: Mapping[int, int],
    parts: Sequence[tuple[int, Cut]],
    into: Mapping[int, torch.Tensor],
    *,
    first: bool,
) -> None:
    """Of one piece what the slices need."""
    if first:
        held.optimizer, held.schedule = file.metadata.get("optimizer", ""), file.metadata.get("schedule")
    elif (held.optimizer, held.schedule) != (file.metadata.get("optimizer", ""), file.metadata.get("schedule")):
        raise inconsistent(
            file.key, "it has another optimiser, or another state of the schedule, than the piece before"
        )
    slots = _slots_of(file)
    for number, part in parts:
        wanted = layout.slices[number]
        source = pb.Slice(tensor=numbers[wanted.tensor], start=part.start, stop=part.stop)
        start, stop = max(part.start, wanted.start), min(part.stop, wanted.stop)
        file.read_into(
            _name("parameter", source), into[number][start - wanted.start : stop - wanted.start], start - part.start
        )
        where = _where(source)
        scalars = file.metadata.get("scalars", {}).get(where, {})
        names = slots.get(where, [])
        if number in held.slots and (held.scalars[number] != scalars or sorted(held.slots[number]) != sorted(names)):
            raise inconsistent(file.key, f"slots of tensor '{layout.tensors[wanted.tensor].name}' do not fit together")
        held.scalars[number] = scalars
        mine = held.slots.setdefault(number, {})
        for name in names:
            _take_slot(file, _name(f"slot:{name}", source), mine, name, wanted, part)


def _take_slot(file: PieceFile, full: str, mine: Slots, name: str, wanted: pb.Slice, part: Cut) -> None:
    if (part.start, part.stop) == (wanted.start, wanted.stop):
        mine[name] = file.read(full)
        return
    if file.size(full) != part.stop - part.start:
        raise inconsistent(file.key, f"'{full}' has a shape of its own and cannot be cut")
    if name not in mine:
        mine[name] = torch.empty(wanted.stop - wanted.start, dtype=torch.float32)
    start, stop = max(part.start, wanted.start), min(part.stop, wanted.stop)
    file.read_into(full, mine[name][start - wanted.start : stop - wanted.start], start - part.start)


@contextlib.asynccontextmanager
async def _fetched(
    objects: Objects, checkpoint: pb.Checkpoint, piece: pb.Piece, folder: Path
) -> AsyncIterator[PieceFile]:
    """The piece as a local file, verified."""
    path = folder / f"fetched-{uuid.uuid4().hex}.piece"
    try:
        info = await objects.download(piece.key, path)
        digest = info.sha256 or await asyncio.to_thread(_digest, path)
        if (digest, info.size) != (piece.sha256, piece.size):
            raise Corrupt(
                f"the piece '{piece.key}' has {info.size} bytes and SHA-256 {digest[:12]}, the checkpoint of version "
                f"{checkpoint.version} says {piece.size} and {piece.sha256[:12]}; resume from another",
                key=piece.key,
            )
        with PieceFile(path, piece.key) as file:
            if file.metadata.get("version") != checkpoint.version:
                raise inconsistent(
                    piece.key, f"it is of version {file.metadata.get('version')}, not {checkpoint.version}"
                )
            yield file
    finally:
        for left in (path, path.with_name(path.name + ".part")):
            left.unlink(missing_ok=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _metadata(held: Held, scalars: Mapping[str, Scalars]) -> dict[str, object]:
    return {
        "version": held.version,
        "optimizer": held.optimizer,
        "scalars": dict(scalars),
        "schedule": held.schedule,
    }


def _slots_of(file: PieceFile) -> dict[str, list[str]]:
    """Names of slots by slice."""
    found: dict[str, list[str]] = {}
    for kind, name, where in _split(file.names):
        if kind == "slot":
            found.setdefault(where, []).append(name)
    return found


def _split(names: frozenset[str]) -> Iterator[tuple[str, str, str]]:
    for full in sorted(names):
        kind, _, rest = full.partition(":")
        name, _, where = rest.partition(":")
        yield kind, name, where


def _name(prefix: str, cut: pb.Slice) -> str:
    return f"{prefix}:{_where(cut)}"


def _where(cut: pb.Slice) -> str:
    return f"{cut.tensor}:{cut.start}:{cut.stop}"
