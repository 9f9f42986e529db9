"""Checkpoints of a run: pieces of all shards and the history in the object store, then the state that names them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import quote

import structlog

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as ps
from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.core.errors import EncephalonError
from encephalon.state import Objects
from encephalon.training.controller.group import Group
from encephalon.training.controller.lineage import Snapshot
from encephalon.training.controller.record import Record

__all__ = ["Checkpoints", "folder_of"]

_log = structlog.get_logger(__name__)

AGAIN_S: Final = 5.0
"""Before a checkpoint that could not be written is tried again."""
TAKEN_S: Final = 30.0
"""A shard writes its slices to its local disk within that; learning waits for it."""
SETTLE_S: Final = 2.0


def folder_of(namespace: str, run: str) -> str:
    """What the keys of a run's objects begin with."""
    return f"training/{quote(namespace, safe='')}/{quote(run, safe='')}"


class Checkpoints:
    """One at a time. It is ordered between two decisions; learning goes on while the pieces travel."""

    def __init__(self, objects: Objects, record: Record, folder: str, every: int, clock: Callable[[], float]) -> None:
        self.snapshot = Snapshot()
        """To what the run goes back when a shard is lost; belongs to `record.state`."""
        self.problem = ""
        """Why the last one could not be written; empty when it could."""
        self.at = clock()
        """When the last one was complete."""
        self._objects = objects
        self._record = record
        self._folder = folder
        self._every = every
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._not_before = 0.0
        self._number = 0
        self._before: ps.Checkpoint | None = None

    @property
    def age_s(self) -> float:
        """Seconds since the last one was complete."""
        return self._clock() - self.at

    @property
    def running(self) -> bool:
        return self._task is not None and not self._task.done()

    def due(self, version: int) -> bool:
        behind = version - self.snapshot.version
        return behind >= self._every and not self.running and self._clock() >= self._not_before

    def initial_key(self) -> str:
        return f"{self._folder}/checkpoints/{0:012}-initial"

    async def begin(
        self, group: Group, snapshot: Snapshot, fill: Callable[[pb.RunState], None], best: pb.Evaluation | None = None
    ) -> None:
        """Orders it, and returns when all shards may go on. fill: writes what else is known into the state. best: of
        the evaluation that makes it the best one."""
        await self.settled()
        taken = asyncio.Event()
        self._number += 1
        self._task = asyncio.create_task(self._write(group, snapshot, fill, best, taken.set), name="checkpoint")
        waiting = asyncio.create_task(taken.wait())
        try:
            await asyncio.wait([self._task, waiting], timeout=TAKEN_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if not taken.is_set() and not self._task.done():
            await self.abandon(f"a shard has not written its slices to its disk within {TAKEN_S:.0f} s")

    async def settled(self) -> bool:
        """Waits for the running one; whether the last one was written."""
        if self._task is not None:
            await asyncio.wait([self._task])
        return not self.problem

    async def abandon(self, why: str = "") -> None:
        """The running one is of no use: a shard is lost."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])
            self._failed(why or "it was broken off, for a shard was lost")

    async def _write(
        self,
        group: Group,
        snapshot: Snapshot,
        fill: Callable[[pb.RunState], None],
        best: pb.Evaluation | None,
        taken: Callable[[], None],
    ) -> None:
        try:
            checkpoint = await self._pieces(group, snapshot, taken)
            place = f"{self._folder}/checkpoints/{self._name(snapshot, group.generation)}"
            history = f"{place}/history"
            await self._objects.put(history, snapshot.history)
        except EncephalonError as error:
            self._failed(error.message)
            return
        finally:
            taken()
        state = self._record.state
        if state.checkpoint.version != checkpoint.version:
            self._before = ps.Checkpoint()
            self._before.CopyFrom(state.checkpoint)
        state.checkpoint.CopyFrom(checkpoint)
        state.history_key = history
        remember(state, snapshot)
        if best is not None:
            state.best.CopyFrom(checkpoint)
            state.best_evaluation.CopyFrom(best)
        fill(state)
        self.snapshot, self.problem, self.at = snapshot, "", self._clock()
        self._record.touch()
        if await self._record.settled(SETTLE_S):
            await self._sweep()

    async def _pieces(self, group: Group, snapshot: Snapshot, taken: Callable[[], None]) -> ps.Checkpoint:
        state = self._record.state
        if state.checkpoint.version == snapshot.version and snapshot.version:
            taken()  # nothing was decided since: only what else is known has changed
            return ps.Checkpoint.FromString(state.checkpoint.SerializeToString())
        name = self._name(snapshot, group.generation)
        pieces = await group.checkpoint(
            snapshot.version,
            state.checkpoint.version if self._record.clean else 0,
            lambda shard: f"{self._folder}/checkpoints/{name}/shard-{shard}",
            taken,
        )
        return ps.Checkpoint(version=snapshot.version, tensors=state.layout.tensors, pieces=pieces)

    def _name(self, snapshot: Snapshot, generation: int) -> str:
        return f"{snapshot.version:012}-{generation}-{self._number}"

    def _failed(self, why: str) -> None:
        self.problem = why
        self._not_before = self._clock() + AGAIN_S
        _log.warning("a checkpoint could not be written; learning goes on", cause=why)

    async def _sweep(self) -> None:
        """Deletes what no published state names any more; the last two and the best stay."""
        state = self._record.state
        kept = {state.history_key}
        for checkpoint in (state.checkpoint, state.best, self._before):
            kept.update(piece.key for piece in (checkpoint.pieces if checkpoint is not None else ()))
        try:
            found = [entry.key async for entry in self._objects.list(f"{self._folder}/checkpoints/")]
            for key in _others(found, kept):
                await self._objects.delete(key)
        except EncephalonError as error:
            _log.info("old checkpoints could not be deleted yet", cause=error.message)


def remember(state: pb.RunState, snapshot: Snapshot) -> None:
    state.progress.CopyFrom(snapshot.progress)
    del state.evaluations[:]
    state.evaluations.extend(snapshot.evaluations)
    state.samples, state.bytes = snapshot.samples, snapshot.moved


def _others(found: Iterable[str], kept: set[str]) -> list[str]:
    return [key for key in found if key not in kept]
