"""The shards of a run, asked as one: all of them, in parallel, and again while one is away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as ps
from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.core.errors import (
    DeadlineExceeded,
    EncephalonError,
    FailedPrecondition,
    Internal,
    NotFound,
    Overloaded,
    Unavailable,
    Unsupported,
)
from encephalon.training.controller.changes import Changes
from encephalon.training.controller.failures import RunFailed, ShardLost, Stalled, Superseded
from encephalon.training.controller.shards import Transport

__all__ = ["Group", "Seat", "together"]

LOG = logging.getLogger(__name__)
T = TypeVar("T")

CALL_S: Final = 2.5
"""Deadline of a call; less than the three seconds after which a member is out."""
LOAD_S: Final = 300.0
"""A shard reads its slices from the object store."""
CHECKPOINT_S: Final = 300.0
STALL_S: Final = 10.0
"""A shard waits so long for a contribution that was reported as pushed before it is asked for again."""
PAUSE_S: Final = 0.1
LOOK_S: Final = 0.5
"""Between two looks at a shard that nothing is asked of."""


@dataclass(slots=True, eq=False)
class Seat:
    """One shard: who sits there now, and what was last heard of it."""

    shard: int
    instance: str = ""
    seen: ps.DescribeResponse = field(default_factory=ps.DescribeResponse)
    away_s: float = 0.0
    """For how long it has not answered; 0 when it has."""
    missed_at: float = 0.0

    def missed(self, now: float) -> None:
        """It has not answered. A process that was itself asleep must not blame the shard for it."""
        self.away_s += min(now - self.missed_at, 2 * CALL_S) if self.away_s else PAUSE_S
        self.missed_at = now


class Group:
    """All calls return when all shards have answered.

    A shard that does not answer is asked again, for `timeout_s` at most (RunFailed); when another incarnation is
    announced in its place, or it has not what it should have, ShardLost.
    """

    def __init__(
        self,
        transport: Transport,
        run: str,
        shards: int,
        timeout_s: float,
        changes: Changes,
        *,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self.seats = [Seat(shard) for shard in range(shards)]
        self.generation = 0
        """That all of them have loaded; 0: none."""
        self.lost: EncephalonError | None = None
        """What `watch` has found; the generation is of no use any more."""
        self._transport = transport
        self._run = run
        self._timeout_s = timeout_s
        self._changes = changes
        self.stopping = stopping
        """Whether the run is to end: then nobody waits for a shard."""

    @property
    def away(self) -> list[int]:
        return [seat.shard for seat in self.seats if seat.away_s]

    @property
    def whole(self) -> bool:
        """All are there and have the same generation."""
        return self.generation > 0 and self.lost is None

    def message(self) -> pb.Shards:
        """Where workers find them; empty while they are not whole."""
        if not self.whole:
            return pb.Shards()
        return pb.Shards(
            generation=self.generation,
            data_addresses=[seat.seen.data_address for seat in self.seats],
            hosts=[seat.seen.host for seat in self.seats],
        )

    async def gather(self, say: Callable[[str], None], check: Callable[[], None]) -> None:
        """Until each shard is announced and answers. RunFailed when one does not within its time."""
        self.generation, self.lost = 0, None
        await together([self._find(seat, say, check) for seat in self.seats])

    async def load(self, request: ps.LoadRequest) -> None:
        """Every shard takes its slices out of the checkpoint of the request, which names no shard."""
        self.generation, self.lost = 0, None

        async def load(seat: Seat) -> None:
            mine = ps.LoadRequest()
            mine.CopyFrom(request)
            mine.shard = seat.shard
            await self._ask(seat, lambda: self._loaded(seat, mine))
            seat.seen.generation = request.generation
            if request.HasField("checkpoint"):
                seat.seen.version = request.checkpoint.version

        await together([load(seat) for seat in self.seats])
        self.generation = request.generation

    async def _loaded(self, seat: Seat, request: ps.LoadRequest) -> ps.LoadResponse:
        """Loading may take long, so the shard is looked at meanwhile. Unavailable or DeadlineExceeded when it says no
        word any more; asked again, it goes on with what it does."""
        loading = asyncio.ensure_future(self._transport.load(seat.instance, request, LOAD_S))
        try:
            while not (await asyncio.wait([loading], timeout=LOOK_S))[0]:
                if self.stopping():
                    raise Unavailable(f"shard {seat.shard} is loading")
                await self._transport.describe(seat.instance, CALL_S, brief=True)
            return loading.result()
        finally:
            loading.cancel()
            await asyncio.wait([loading])

    async def prepare(self, update: int, contributions: Iterable[ps.Contribution]) -> list[ps.PrepareResponse]:
        """Stalled when a shard has waited in vain."""
        request = ps.PrepareRequest(
            run=self._run, generation=self.generation, update=update, contributions=contributions
        )

        async def prepare(seat: Seat) -> ps.PrepareResponse:
            clock = asyncio.get_running_loop().time
            end = clock() + STALL_S
            while True:
                try:
                    return await self._ask(
                        seat,
                        lambda: self._transport.prepare(seat.instance, request, CALL_S),
                        giving_up=lambda error: isinstance(error, DeadlineExceeded) and clock() > end,
                    )
                except DeadlineExceeded as error:
                    await self._ask(seat, lambda: self._transport.describe(seat.instance, CALL_S, brief=True))
                    raise Stalled(
                        f"shard {seat.shard} has waited {STALL_S:.0f} s for update {update} in vain"
                    ) from error

        return await together([prepare(seat) for seat in self.seats])

    async def decide(self, request: ps.DecideRequest, seats: Sequence[Seat] | None = None) -> float:
        """The learning rate after it."""

        async def decide(seat: Seat) -> ps.DecideResponse:
            response = await self._ask(seat, lambda: self._transport.decide(seat.instance, request, CALL_S))
            seat.seen.version = response.version
            return response

        responses = await together([decide(seat) for seat in (self.seats if seats is None else seats)])
        return responses[0].learning_rate

    async def checkpoint(
        self, version: int, published: int, key: Callable[[int], str], taken: Callable[[], None]
    ) -> list[ps.Piece]:
        """Pieces by shard, once all are in the store; `taken` is called when all shards may go on learning. Raises what
        a shard says; the others go on, and their pieces are orphans."""
        left = {seat.shard for seat in self.seats}

        def done(shard: int) -> None:
            left.discard(shard)
            if not left:
                taken()

        async def checkpoint(seat: Seat) -> ps.Piece:
            request = ps.CheckpointRequest(
                run=self._run,
                generation=self.generation,
                version=version,
                key=key(seat.shard),
                published=published,
            )
            response = await self._transport.checkpoint(seat.instance, request, lambda: done(seat.shard), CHECKPOINT_S)
            return response.piece

        return await together([checkpoint(seat) for seat in self.seats])

    async def watch(self) -> None:
        """For ever: looks whether the shards are what they should be; says so in `lost`."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self.whole:
                await asyncio.gather(*(self._look(seat, self.generation) for seat in self.seats))

    async def _look(self, seat: Seat, generation: int) -> None:
        try:
            seen = await self._transport.describe(seat.instance, CALL_S, brief=True)
        except (Unavailable, DeadlineExceeded):
            seat.missed(asyncio.get_running_loop().time())
            found: EncephalonError | None = await self._replaced(seat) or self._too_long(seat)
        except EncephalonError as error:
            LOG.warning("a shard cannot say how it is", extra={"shard": seat.shard, "cause": error.message})
            return
        else:
            found = self._wrong(seat, seen, generation)
            seat.seen, seat.away_s = seen, 0.0
        if found is not None and self.generation == generation and self.lost is None:
            self.lost = found
            self._changes.told()

    def _wrong(self, seat: Seat, seen: ps.DescribeResponse, generation: int) -> EncephalonError | None:
        if seen.incarnation != seat.seen.incarnation:
            return ShardLost(f"shard {seat.shard} has begun anew, without its memory")
        if seen.run == self._run and seen.generation > generation:
            return Superseded(
                f"shard {seat.shard} has loaded generation {seen.generation}, which another control node has ordered"
            )
        if seen.run != self._run or seen.generation != generation or seen.shard != seat.shard:
            return ShardLost(f"shard {seat.shard} has lost what it had loaded")
        return None

    async def _find(self, seat: Seat, say: Callable[[str], None], check: Callable[[], None]) -> None:
        seat.away_s = 0.0
        while True:
            found = [pair for name in self._transport.announced(seat.shard) if (pair := await self._described(name))]
            if found:
                # The one before may not be dead yet; it is of use when it still has this run.
                seat.instance, seat.seen = max(
                    found, key=lambda pair: (pair[1].run == self._run, pair[1].generation, pair[1].version)
                )
                seat.away_s = 0.0
                return
            check()
            say(f"waits for shard {seat.shard}")
            await self._changes.wait(PAUSE_S)
            seat.missed(asyncio.get_running_loop().time())
            if (away := self._too_long(seat)) is not None:
                raise away

    async def _described(self, instance: str, *, brief: bool = False) -> tuple[str, ps.DescribeResponse] | None:
        try:
            return instance, await self._transport.describe(instance, CALL_S, brief=brief)
        except EncephalonError:
            return None

    async def _replaced(self, seat: Seat) -> ShardLost | None:
        for instance in self._transport.announced(seat.shard):
            described = await self._described(instance, brief=True)
            if described is not None and described[1].incarnation != seat.seen.incarnation:
                return ShardLost(f"shard {seat.shard} has come back without its memory")
            if described is not None:
                seat.instance = instance  # the same process, announced at another address
        return None

    def _too_long(self, seat: Seat) -> RunFailed | None:
        if seat.away_s <= self._timeout_s:
            return None
        return RunFailed(
            f"shard {seat.shard} has not answered for {self._timeout_s:g} s; start it and resume the run",
            shard=seat.shard,
        )

    async def _ask(
        self,
        seat: Seat,
        call: Callable[[], Awaitable[T]],
        giving_up: Callable[[EncephalonError], bool] = lambda error: False,
    ) -> T:
        while True:
            try:
                answer = await call()
            except (Unavailable, DeadlineExceeded, Overloaded) as error:
                if giving_up(error):
                    raise
                await self._bear(seat, error)
            except (FailedPrecondition, Internal, Unsupported) as error:
                raise ShardLost(f"shard {seat.shard} says: {error.message}", refused=True) from error
            except NotFound as error:
                raise RunFailed(f"shard {seat.shard} says: {error.message}") from error
            else:
                seat.away_s = 0.0
                return answer

    async def _bear(self, seat: Seat, error: EncephalonError) -> None:
        if self.lost is not None:
            raise ShardLost(self.lost.message) from error
        if (replaced := await self._replaced(seat)) is not None:
            raise replaced from error
        if self.stopping():
            raise ShardLost(f"shard {seat.shard} is away while the run is to end") from error
        seat.missed(asyncio.get_running_loop().time())
        if (away := self._too_long(seat)) is not None:
            raise away from error
        await asyncio.sleep(PAUSE_S)


async def together(calls: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """What all give, in order; when one fails the others are cancelled and have ended."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
