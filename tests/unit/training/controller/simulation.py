"""A whole run in virtual time: the engine as it is, over shards, stores and workers that are simulated."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count, pairwise
from random import Random
from typing import Any, cast

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as ps
from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.core.errors import EncephalonError, Unavailable
from encephalon.state import KeyValue, Objects
from encephalon.training.controller.changes import Changes
from encephalon.training.controller.checkpoints import Checkpoints
from encephalon.training.controller.desk import Desk
from encephalon.training.controller.engine import Engine
from encephalon.training.controller.group import Group
from encephalon.training.controller.record import Record
from encephalon.training.recording.history import History
from encephalon.training.runs import RunSettings
from encephalon.training.states import unpacked
from tests.unit.training.controller.shards import FakeShard, FakeTransport, Samples
from tests.unit.training.controller.stores import MemoryKeyValue, MemoryObjects
from tests.waiting import until

__all__ = ["Crew", "World", "settings_of"]

KEY = "/run/state"
TENSORS = [ps.Tensor(name="region/weight", shape=[4, 4], kind=ps.Tensor.KIND_PARAMETER)]


def settings_of(**more: Any) -> RunSettings:
    values: dict[str, Any] = {"run": "r", "brain": "brain:b@1", "data": "data_set:d@1", "validation": "", "epochs": 2}
    return RunSettings.checked(**{**values, **more})


@dataclass
class World:
    settings: RunSettings
    samples: int = 50
    shards: int = 1
    evaluation: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    loss: float = 0.0
    fences: bool = True

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.store, self.objects = MemoryKeyValue(), MemoryObjects()
        self.servers = [FakeShard(number, self.objects, fences=self.fences) for number in range(self.shards)]
        self.transport = FakeTransport(self.servers, self.random, self.loss)
        self.engine: Engine | None = None
        self.task: asyncio.Task[pb.RunState.State.ValueType] | None = None
        self.recorded: list[pb.RunState] = []
        self.broken: list[BaseException | None] = []

    @property
    def state(self) -> pb.RunState:
        return unpacked(self.store.entries[KEY].value, "r")

    async def start(self) -> Engine:
        """The control node, or the next one."""
        changes = Changes()
        record = Record(cast(KeyValue, self.store), KEY, changes)
        while True:
            with contextlib.suppress(Unavailable):
                await record.read()
                break
            await asyncio.sleep(0.5)
        clock = asyncio.get_running_loop().time
        group = Group(self.transport, "r", len(self.servers), self.settings.shard_timeout_s, changes)
        objects = cast(Objects, self.objects)
        engine = self.engine = Engine(
            self.settings,
            desk=Desk("r", self.settings.death_s),
            group=group,
            record=record,
            checkpoints=Checkpoints(objects, record, "c", self.settings.checkpoint_steps, clock),
            objects=objects,
            changes=changes,
            finish=self._finish,
            ended=lambda name, error: self.broken.append(error),
        )
        group.stopping = lambda: engine.stop
        self.task = asyncio.create_task(engine.run(), name="engine")
        return engine

    async def kill_control(self) -> None:
        task, self.task, self.engine = self.task, None, None
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task])

    async def ended(self) -> pb.RunState.State.ValueType:
        await until(lambda: self.task is not None and self.task.done(), within=5000, what="the run ends")
        assert not self.broken, self.broken
        assert self.task is not None
        return self.task.result()

    async def _finish(self, state: pb.RunState, history: bytes) -> Mapping[str, str]:
        kept = pb.RunState()
        kept.CopyFrom(state)
        self.recorded.append(kept)
        return {"run": "run:r@1"}

    def check(self) -> None:
        """Every sample of every epoch was applied exactly once, by all shards alike, in batches of the right size."""
        state = self.state
        pieces = [json.loads(self.objects.objects[piece.key]) for piece in state.checkpoint.pieces]
        applied = [[(each[0], each[1], each[2]) for each in update] for update in pieces[0]]
        assert all(piece == pieces[0] for piece in pieces)
        assert state.checkpoint.version == len(applied)
        assert state.samples == self.samples * self.settings.epochs
        history = History.read(self.objects.objects[state.history_key])
        assert [step.version for step in history.steps] == list(range(1, len(applied) + 1))
        by_epoch: dict[int, list[tuple[int, int]]] = {}
        for update in applied:
            for epoch, start, stop in update:
                by_epoch.setdefault(epoch, []).append((start, stop))
            if self.settings.mode == "sync":
                self._check_batch(update)
        assert sorted(by_epoch) == list(range(self.settings.epochs))
        for ranges in by_epoch.values():
            edges = sorted(ranges)
            assert edges[0][0] == 0
            assert edges[-1][1] == self.samples
            assert all(before[1] == after[0] for before, after in pairwise(edges)), edges

    def _check_batch(self, update: list[Samples]) -> None:
        first, last = min(start for _, start, _ in update), max(stop for _, _, stop in update)
        size = sum(stop - start for _, start, stop in update)
        assert size == last - first == min(self.settings.batch_size, self.samples - first)


class Crew:
    """Workers by name; a name may be killed and started again."""

    def __init__(self, world: World, *, duplicates: float = 0.0, limits: Mapping[str, int] | None = None) -> None:
        self.world = world
        self.given: list[tuple[str, pb.Share]] = []
        self.reported: list[tuple[str, pb.Share]] = []
        self.failing: dict[str, str] = {}
        self.losses: list[float] = []
        self._limits = limits or {}
        self._duplicates = duplicates
        self._incarnations = count(1)
        self._tasks: dict[str, list[asyncio.Task[None]]] = {}

    def start(self, name: str, seconds: float = 0.05) -> None:
        """seconds: that it needs for 10 samples."""
        self.kill(name)
        member = pb.Member(worker=name, incarnation=str(next(self._incarnations)))
        self._tasks[name] = [
            asyncio.create_task(self._work(member, seconds), name=name),
            asyncio.create_task(self._beat(member), name=f"{name} beats"),
        ]

    def kill(self, name: str) -> None:
        for task in self._tasks.pop(name, []):
            task.cancel()

    async def close(self) -> None:
        tasks = [task for tasks in self._tasks.values() for task in tasks]
        for name in list(self._tasks):
            self.kill(name)
        if tasks:
            await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled() and task.exception() is not None:
                    raise task.exception()  # type: ignore[misc]

    @property
    def _desk(self) -> Desk:
        if self.world.engine is None:
            raise Unavailable("no control node")
        return self.world.engine.desk

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _beat(self, member: pb.Member) -> None:
        while True:
            with contextlib.suppress(Unavailable):
                self._desk.heartbeat(pb.HeartbeatRequest(run="r", member=member), self._now)
            await asyncio.sleep(0.5)

    async def _work(self, member: pb.Member, seconds: float) -> None:
        joined: Desk | None = None
        while True:
            try:
                desk = self._desk
                if joined is not desk:
                    desk.join(self._join(member), self._now)
                    joined = desk
                    self.world.engine.changes.told()  # type: ignore[union-attr]
                response = desk.next(pb.NextRequest(run="r", member=member), self._now)
                if response is not None and response.rejoin:
                    joined = None
                elif response is not None and response.HasField("share"):
                    share = pb.Share.FromString(response.share.SerializeToString())
                    await self._share(member, share, seconds)
                    continue
            except Unavailable:
                pass
            await asyncio.sleep(0.02)

    def _join(self, member: pb.Member) -> pb.JoinRequest:
        return pb.JoinRequest(
            run="r",
            member=member,
            host="here",
            tensors=TENSORS,
            model_digest="d",
            training_samples=self.world.samples,
            evaluation_samples=self.world.evaluation,
            most_samples=self._limits.get(member.worker, 0),
        )

    async def _share(self, member: pb.Member, share: pb.Share, seconds: float) -> None:
        self.given.append((member.worker, share))
        samples = share.stop - share.start
        took = seconds * samples / 10 * (0.5 + self.world.random.random())
        await asyncio.sleep(took)
        report = pb.ReportRequest(
            run="r", member=member, share=share, samples=samples, compute_seconds=took, failure=self._failure(member)
        )
        if not report.failure:
            report.failure = await self._done(share)
        if share.kind == pb.Share.KIND_INITIALISE:
            report.initial.pieces.add(key=share.key)
        elif share.kind == pb.Share.KIND_EVALUATE:
            report.correct["y"] = samples
            report.loss = samples * (self.losses[min(share.epoch, len(self.losses) - 1)] if self.losses else 1.0)
        else:
            report.loss = 2.0 * samples
        await self._report(report)

    def _failure(self, member: pb.Member) -> str:
        return self.failing.get(member.worker, "")

    async def _done(self, share: pb.Share) -> str:
        if share.kind == pb.Share.KIND_INITIALISE:
            self.world.objects.objects[share.key] = json.dumps([]).encode()
        if share.kind != pb.Share.KIND_TRAIN:
            return ""
        for shard in self.world.random.sample(self.world.servers, len(self.world.servers)):
            await asyncio.sleep(self.world.random.random() * 0.01)
            try:
                samples = (share.epoch, share.start, share.stop)
                shard.push(share.generation, share.update, share.rank, share.attempt, samples)
            except EncephalonError as error:
                return error.message
        return ""

    async def _report(self, report: pb.ReportRequest) -> None:
        while True:
            await asyncio.sleep(self.world.random.random() * 0.02)
            try:
                self._desk.report(report, self._now)
            except Unavailable:
                continue
            self.reported.append((report.member.worker, report.share))
            self.world.engine.changes.told()  # type: ignore[union-attr]
            if self.world.random.random() >= self._duplicates:
                return
            if self.world.random.random() < 0.5:
                # The duplicate comes much later, behind what the worker does next.
                asyncio.get_running_loop().call_later(self.world.random.random(), self._late, report)
                return

    def _late(self, report: pb.ReportRequest) -> None:
        with contextlib.suppress(Unavailable):
            self._desk.report(report, self._now)
