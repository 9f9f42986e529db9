"""Shards that hold no numbers, but remember which samples were applied, and refuse what a shard must refuse."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as ps
from encephalon.core.errors import DeadlineExceeded, FailedPrecondition, InvalidInput, Unavailable
from tests.unit.training.controller.stores import MemoryObjects

__all__ = ["FakeShard", "FakeTransport", "Samples"]

Samples = tuple[int, int, int]
"""Epoch, start, stop."""


@dataclass
class FakeShard:
    number: int
    objects: MemoryObjects
    incarnation: int = 1
    fences: bool = True
    run: str = ""
    generation: int = 0
    version: int = 0
    applied: list[list[Samples]] = field(default_factory=list)
    """By version: what it was made of."""
    decided: list[ps.Decided] = field(default_factory=list)
    prepared: set[int] = field(default_factory=set)
    pushed: dict[tuple[int, int], tuple[int, Samples]] = field(default_factory=dict)
    over: set[int] = field(default_factory=set)
    frozen: bool = False
    full: bool = False
    not_finite: Callable[[int], str] = lambda update: ""
    norms: Callable[[int], float] = lambda update: 1.0
    decisions: list[ps.DecideRequest] = field(default_factory=list)

    @property
    def instance(self) -> str:
        return f"shard-{self.number}-{self.incarnation}"

    def die(self) -> None:
        """Comes back at once, without its memory."""
        fresh = FakeShard(self.number, self.objects, self.incarnation + 1, self.fences)
        kept = {"not_finite": self.not_finite, "norms": self.norms, "decisions": self.decisions}
        self.__dict__.update({**fresh.__dict__, **kept})

    def push(self, generation: int, update: int, rank: int, attempt: int, samples: Samples) -> None:
        if self.frozen:
            raise Unavailable("frozen")
        if generation != self.generation or update in self.over:
            raise FailedPrecondition("stale")
        before = self.pushed.get((update, rank))
        if before is not None and before[0] > attempt:
            raise FailedPrecondition("a higher attempt is here")
        self.pushed[update, rank] = attempt, samples

    def describe(self) -> ps.DescribeResponse:
        return ps.DescribeResponse(
            incarnation=str(self.incarnation),
            data_address=f"shard-{self.number}:1",
            host="here",
            run=self.run,
            generation=self.generation,
            shard=self.number,
            version=self.version,
            decided=self.decided,
            prepared=sorted(self.prepared),
        )

    def load(self, request: ps.LoadRequest) -> ps.LoadResponse:
        if request.generation < self.generation:
            raise FailedPrecondition("an earlier generation")
        if request.generation > self.generation:
            self._take(request)
        return ps.LoadResponse(version=self.version)

    def _take(self, request: ps.LoadRequest) -> None:
        if request.HasField("checkpoint"):
            if self.objects.away:
                raise Unavailable("the object store is away")
            content = json.loads(self.objects.objects[request.checkpoint.pieces[0].key])
            assert len(content) == request.checkpoint.version
            self.applied = [[tuple(each) for each in update] for update in content]
            self.version, self.decided = request.checkpoint.version, []
            self.over.clear()
        elif not self.fences or not self.run:
            raise InvalidInput("there is no checkpoint")
        self.run, self.generation = request.run, request.generation
        self.pushed.clear()
        self.prepared.clear()

    def held(self, run: str, generation: int) -> None:
        if (run, generation) != (self.run, self.generation):
            raise FailedPrecondition(f"generation {self.generation} is loaded")

    def prepare(self, request: ps.PrepareRequest) -> ps.PrepareResponse:
        self.held(request.run, request.generation)
        for each in request.contributions:
            if self.pushed.get((request.update, each.rank), (-1,))[0] != each.attempt:
                raise DeadlineExceeded("it did not come")
        wanted = {each.rank for each in request.contributions}
        for update, rank in list(self.pushed):
            if update == request.update and rank not in wanted:
                del self.pushed[update, rank]
        self.prepared.add(request.update)
        bad = self.not_finite(request.update)
        return ps.PrepareResponse(
            squared_norm=self.norms(request.update), non_finite=[ps.NonFinite(rank=0, tensor=bad)] if bad else []
        )

    def decide(self, request: ps.DecideRequest) -> ps.DecideResponse:
        self.held(request.run, request.generation)
        if request.update not in self.over:
            self._decide(request)
        return ps.DecideResponse(version=self.version, learning_rate=0.5)

    def _decide(self, request: ps.DecideRequest) -> None:
        if request.decision != ps.DecideRequest.DECISION_DROP:
            if request.version != self.version + 1:
                raise FailedPrecondition(f"version {request.version} behind {self.version}")
            if request.update not in self.prepared:
                raise FailedPrecondition("not prepared")
            parts = sorted(samples for (update, _), (_, samples) in self.pushed.items() if update == request.update)
            self.applied.append(parts)
            self.version = request.version
            self.decided.append(
                ps.Decided(
                    update=request.update,
                    version=request.version,
                    decision=request.decision,
                    scale=request.scale,
                    note=request.note,
                )
            )
        self.decisions.append(request)
        self.over.add(request.update)
        self.prepared.discard(request.update)
        for key in [key for key in self.pushed if key[0] == request.update]:
            del self.pushed[key]

    def checkpoint(self, request: ps.CheckpointRequest) -> ps.CheckpointResponse:
        self.held(request.run, request.generation)
        if request.version != self.version or self.full:
            raise FailedPrecondition("the disk is full" if self.full else "another version")
        self.decided = [each for each in self.decided if each.version > request.published]
        if self.objects.away:
            raise FailedPrecondition("the object store is away")
        self.objects.objects[request.key] = json.dumps(self.applied).encode()
        return ps.CheckpointResponse(piece=ps.Piece(key=request.key))


class FakeTransport:
    """Loses orders and answers, and is slow, as its random numbers say."""

    def __init__(self, shards: Sequence[FakeShard], random: Random, loss: float = 0.0, delay_s: float = 0.01) -> None:
        self.shards = shards
        self._random = random
        self._loss = loss
        self._delay_s = delay_s

    def announced(self, shard: int) -> Sequence[str]:
        return [each.instance for each in self.shards if each.number == shard and not each.frozen]

    async def describe(self, instance: str, timeout_s: float, *, brief: bool = False) -> ps.DescribeResponse:
        response: ps.DescribeResponse = await self._call(instance, timeout_s, lambda shard: shard.describe())
        if brief:
            response.ClearField("decided")
        return response

    async def load(self, instance: str, request: ps.LoadRequest, timeout_s: float) -> ps.LoadResponse:
        return await self._call(instance, timeout_s, lambda shard: shard.load(request))

    async def prepare(self, instance: str, request: ps.PrepareRequest, timeout_s: float) -> ps.PrepareResponse:
        try:
            return await self._call(instance, timeout_s, lambda shard: shard.prepare(request))
        except DeadlineExceeded:
            await asyncio.sleep(timeout_s)
            raise

    async def decide(self, instance: str, request: ps.DecideRequest, timeout_s: float) -> ps.DecideResponse:
        return await self._call(instance, timeout_s, lambda shard: shard.decide(request))

    async def checkpoint(
        self, instance: str, request: ps.CheckpointRequest, taken: Callable[[], None], timeout_s: float
    ) -> ps.CheckpointResponse:
        response: ps.CheckpointResponse = await self._call(instance, timeout_s, lambda shard: shard.checkpoint(request))
        taken()
        await self._pause(5)
        return response

    async def _call(self, instance: str, timeout_s: float, answer: Callable[[FakeShard], object]):  # type: ignore[no-untyped-def]
        await self._pause()
        shard = next((each for each in self.shards if each.instance == instance), None)
        if shard is None:
            raise Unavailable(f"{instance} is gone")
        if shard.frozen:
            await asyncio.sleep(timeout_s)
            raise DeadlineExceeded(f"{instance} is silent")
        if self._random.random() < self._loss:
            raise Unavailable("the order was lost")
        result = answer(shard)
        await self._pause()
        if self._random.random() < self._loss:
            raise Unavailable("the answer was lost")
        return result

    async def _pause(self, times: float = 1.0) -> None:
        if self._delay_s:
            await asyncio.sleep(self._random.random() * self._delay_s * times)
