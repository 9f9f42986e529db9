"""Adds the contributions to one update, slice by slice, while others still come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch

from encephalon.core.errors import FailedPrecondition, InvalidInput
from encephalon.parameter_server.contribution import Received
from encephalon.parameter_server.gradient import Gradient
from encephalon.parameter_server.places import Places

__all__ = ["Named", "NotFinite", "Prepared", "Reduction"]

BLOCK: Final = 1 << 16
"""Elements that are widened to double precision at once; they stay in the second cache, which makes it ten times faster
than the norm of a whole slice."""


class Named(NamedTuple):
    """A contribution that an update needs."""

    rank: int
    attempt: int


@dataclass(frozen=True, slots=True)
class NotFinite:
    rank: int
    tensor: str


@dataclass(frozen=True, slots=True)
class Prepared:
    squared_norm: float
    """Of the sum over the learned slices of this shard, in double precision."""
    not_finite: tuple[NotFinite, ...]
    """Whose contribution is not finite; or, when only the sum is not, who brought most."""


@dataclass(frozen=True, slots=True)
class Sum:
    """Of one slice: which contributions are in it, those of them that are not absent, and its squared norm."""

    of: tuple[Named, ...] = ()
    parts: tuple[torch.Tensor, ...] = ()
    squared_norm: float = 0.0


class Reduction:
    """Float32 additions in strict order of the ranks, rounded as `g0.clone().add_(g1).add_(g2)`.

    Contributions are kept until the update is decided, for another attempt may take the place of one that came. They
    are added twice, block by block: for the norm, and where the optimiser wants the sum; so a sum takes no memory. Any
    thread puts into `received` and `want`s; one alone adds.
    """

    def __init__(self, update: int, places: Places, expected: int) -> None:
        """expected: how many contributions there will be, as far as one can know before it is said."""
        self.update = update
        self.received: dict[int, Received] = {}
        self.wanted: tuple[Named, ...] | None = None
        self._places = places
        self._expected = expected
        self._sums = {number: Sum() for number in places.numbers}
        self._prepared: tuple[tuple[Named, ...], Prepared] | None = None
        self._kept: list[Received] = []
        """Of a lower attempt that is prepared, and may be decided still."""

    @property
    def prepared(self) -> Prepared | None:
        """Of `wanted`."""
        # One thread finishes while another wants something else.
        known = self._prepared
        return known[1] if known is not None and known[0] == self.wanted else None

    def want(self, wanted: Sequence[Named]) -> None:
        """InvalidInput for none or a bad order; FailedPrecondition when a higher attempt of a rank is here, unless just
        this is prepared already."""
        if self.prepared is not None and self.wanted == tuple(wanted):
            return
        ranks = [named.rank for named in wanted]
        if not ranks or ranks != sorted(set(ranks)):
            raise InvalidInput(
                f"update {self.update} was prepared from ranks {ranks}; expected one or more, each once, in order"
            )
        for rank, attempt in wanted:
            received = self.received.get(rank)
            if received is not None and received.key.attempt > attempt:
                raise FailedPrecondition(
                    f"update {self.update} was prepared from attempt {attempt} of rank {rank}, but attempt "
                    f"{received.key.attempt} has taken its place",
                    rank=rank,
                )
        if self.wanted != tuple(wanted):
            self.wanted, self._prepared = tuple(wanted), None

    def advance(self, number: int) -> None:
        """Takes the norm of the slice's sum, when all of it came."""
        if self._kept and self.prepared is None:
            self._let_go()
        order = self._order()
        if self._sums[number].of == order or not self._complete(order):
            return
        found: list[torch.Tensor | None] = []
        for named in order:
            received = self.received.get(named.rank)
            if received is None or received.key.attempt != named.attempt or number not in received.there:
                return
            found.append(received.there[number])
        parts = tuple(part for part in found if part is not None)
        self._sums[number] = Sum(order, parts, squared_norm(parts) if parts else 0.0)

    def finish(self) -> Prepared | None:
        """What `wanted` comes to, when it is all there."""
        wanted = self.wanted
        if wanted is None or any(each.of != wanted for each in self._sums.values()):
            return None
        norms = {number: each.squared_norm for number, each in self._sums.items()}
        bad = [number for number, norm in norms.items() if not abs(norm) < float("inf")]
        guilty = dict.fromkeys(found for number in bad for found in self._guilty(number, wanted))
        total = sum(norm for number, norm in norms.items() if self._places.learned(number))
        self._prepared = wanted, Prepared(total, tuple(guilty))
        return self.prepared

    def forget(self, received: Received, reason: str) -> None:
        """A higher attempt has taken its place. What is prepared stays so until something else is wanted."""
        self._kept.append(received)
        received.refuse(reason)
        if self.prepared is None:
            self._let_go()

    def missing(self) -> list[int]:
        """Ranks of `wanted` that have not come as a whole."""
        there = {Named(rank, each.key.attempt) for rank, each in list(self.received.items()) if each.whole}
        return [named.rank for named in self.wanted or () if named not in there]

    def gradients(self, scale: float = 1.0) -> dict[int, Gradient | None]:
        """By slice, multiplied by `scale` where it is learned; None where all contributions are absent."""
        return {
            number: Gradient(each.parts, scale if self._places.learned(number) else 1.0) if each.parts else None
            for number, each in self._sums.items()
        }

    def release(self, reason: str) -> None:
        """Lets everything go; only in the thread that adds."""
        for received in [*self.received.values(), *self._kept]:
            received.release(reason)
        self._kept, self._prepared = [], None
        self._sums = {}

    @property
    def buffered_bytes(self) -> int:
        return sum(received.buffered_bytes for received in [*self.received.values(), *self._kept])

    def _let_go(self) -> None:
        for received in self._kept:
            gone = Named(received.key.rank, received.key.attempt)
            for number, known in self._sums.items():
                if gone in known.of:
                    self._sums[number] = Sum()
            received.release("another attempt has taken its place")
        self._kept = []

    def _order(self) -> tuple[Named, ...]:
        """Those that were named; before that the ranks from 0 on, which nearly always are those that will be."""
        if self.wanted is not None:
            return self.wanted
        order: list[Named] = []
        while (received := self.received.get(len(order))) is not None:
            order.append(Named(len(order), received.key.attempt))
        return tuple(order)

    def _complete(self, order: tuple[Named, ...]) -> bool:
        return self.wanted is not None or len(order) == self._expected

    def _guilty(self, number: int, wanted: Sequence[Named]) -> list[NotFinite]:
        name = self._places.tensor(number).name
        values = {named.rank: self.received[named.rank].there.get(number) for named in wanted}
        there = {rank: value for rank, value in values.items() if value is not None}
        found = [NotFinite(rank, name) for rank, value in there.items() if not bool(torch.isfinite(value).all())]
        most = max(there, key=lambda rank: float(there[rank].abs().max()), default=wanted[-1].rank)
        return found or [NotFinite(most, name)]


def squared_norm(parts: tuple[torch.Tensor, ...]) -> float:
    """Of the sum, in double precision, block by block; not finite when some value is not."""
    total, gradient, scratch = 0.0, Gradient(parts), torch.empty(BLOCK)
    for start in range(0, len(parts[0]), BLOCK):
        block = parts[0][start : start + BLOCK]
        if not gradient.plain():
            block = gradient.into(scratch[: len(block)], start)
        wide = block.double()
        total += float(wide.dot(wide))
    return total
