"""Adds the contributions to one update, slice by slice, while others still come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import torch

from encephalon.core.errors import FailedPrecondition, InvalidInput
from encephalon.parameter_server.contribution import Received
from encephalon.parameter_server.memory import Pool
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


@dataclass(slots=True)
class Sum:
    """Of one slice."""

    added: list[Named] = field(default_factory=list)
    total: torch.Tensor | None = None
    """None while nothing but absence was added."""
    squared_norm: float | None = None
    """Of `total`; None until it was taken."""


class Reduction:
    """Float32 additions in strict order of the ranks: ((g0 + g1) + g2), rounded as `g0.clone().add_(g1).add_(g2)`.

    Contributions are kept until the update is decided, for another attempt may take the place of one that was added;
    so two or more take a buffer for their sum. Any thread puts into `received` and `want`s; one alone adds.
    """

    def __init__(self, update: int, places: Places, pool: Pool, expected: int) -> None:
        """expected: how many contributions there will be, as far as one can know before it is said."""
        self.update = update
        self.received: dict[int, Received] = {}
        self.wanted: tuple[Named, ...] | None = None
        self._places = places
        self._pool = pool
        self._expected = expected
        self._sums = {number: Sum() for number in places.numbers}
        self._flat: torch.Tensor | None = None
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
        """Adds what can be added to the slice, and takes its norm when everything was."""
        if self._kept and self.prepared is None:
            self._let_go()
        order, known = self._order(), self._sums[number]
        if tuple(known.added) != order[: len(known.added)]:
            known = self._sums[number] = Sum()
        for named in order[len(known.added) :]:
            received = self.received.get(named.rank)
            if received is None or received.key.attempt != named.attempt or number not in received.there:
                break
            self._add(known, number, received.there[number])
            known.added.append(named)
        if known.squared_norm is None and self._complete(known):
            known.squared_norm = 0.0 if known.total is None else squared_norm(known.total)

    def finish(self) -> Prepared | None:
        """What `wanted` comes to, when it is all there."""
        wanted = self.wanted
        sums = self._sums.values()
        if wanted is None or any(tuple(each.added) != wanted or each.squared_norm is None for each in sums):
            return None
        norms = {number: each.squared_norm or 0.0 for number, each in self._sums.items()}
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

    def totals(self, scale: float = 1.0) -> dict[int, torch.Tensor | None]:
        """By slice, multiplied by `scale` where it is learned; None where all contributions are absent. Once only."""
        return {number: self._scaled(number, each.total, scale) for number, each in self._sums.items()}

    def release(self, reason: str) -> None:
        """Lets everything go; only in the thread that adds."""
        for received in [*self.received.values(), *self._kept]:
            received.release(reason)
        self._kept, self._prepared = [], None
        self._sums = {}
        flat, self._flat = self._flat, None
        if flat is not None:
            self._pool.give(flat)

    @property
    def buffered_bytes(self) -> int:
        own = 0 if self._flat is None else self._flat.nbytes
        return own + sum(received.buffered_bytes for received in [*self.received.values(), *self._kept])

    def _let_go(self) -> None:
        for received in self._kept:
            gone = Named(received.key.rank, received.key.attempt)
            for number, known in self._sums.items():
                if gone in known.added:
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

    def _complete(self, known: Sum) -> bool:
        if self.wanted is not None:
            return tuple(known.added) == self.wanted
        return len(known.added) == self._expected

    def _add(self, known: Sum, number: int, value: torch.Tensor | None) -> None:
        known.squared_norm = None
        if value is None:
            return
        if known.total is None:
            known.total = value
        elif self._mine(known.total):
            known.total.add_(value)
        else:
            known.total = torch.add(known.total, value, out=self._own(number))

    def _scaled(self, number: int, total: torch.Tensor | None, scale: float) -> torch.Tensor | None:
        if total is None or scale == 1.0 or not self._places.learned(number):
            return total
        # What was lent is only read.
        return torch.mul(total, scale, out=total if self._mine(total) else self._own(number))

    def _own(self, number: int) -> torch.Tensor:
        if self._flat is None:
            self._flat = self._pool.take()
        return self._places.view(self._flat, number)

    def _mine(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor lies in the sum's own memory, so that nobody else reads it."""
        return self._flat is not None and tensor.untyped_storage().data_ptr() == self._flat.untyped_storage().data_ptr()

    def _guilty(self, number: int, wanted: Sequence[Named]) -> list[NotFinite]:
        name = self._places.tensor(number).name
        values = {named.rank: self.received[named.rank].there.get(number) for named in wanted}
        there = {rank: value for rank, value in values.items() if value is not None}
        found = [NotFinite(rank, name) for rank, value in there.items() if not bool(torch.isfinite(value).all())]
        most = max(there, key=lambda rank: float(there[rank].abs().max()), default=wanted[-1].rank)
        return found or [NotFinite(most, name)]


def squared_norm(values: torch.Tensor) -> float:
    """In double precision, block by block; not finite when some value is not."""
    total = 0.0
    for block in torch.split(values, BLOCK):
        wide = block.double()
        total += float(wide.dot(wide))
    return total
